"""Experiments, as MlflowClient asks for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepstream.entities import Experiment, PagedList, ViewType
from stepstream.errors import QueryError
from stepstream.listed import listed
from stepstream.tracking import said
from stepstream.tracking.asking import Asking, texts, view, whole
from stepstream_schema import paths


class Experiments(Asking):
    """Makes, finds and changes experiments. Raises QueryError."""

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Mapping[str, Any] | None = None
    ) -> str:
        """A new experiment; its id."""
        body = {"name": name, "artifact_location": artifact_location or "", "tags": texts(tags), "exclusive": True}
        return str(self._ask("POST", paths.EXPERIMENTS, body)["experiment_id"])

    def get_experiment(self, experiment_id: str | int) -> Experiment:
        """One experiment, be it deleted."""
        return said.experiment(self._ask("GET", _one(experiment_id)))

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """The experiment of a name, or None."""
        try:
            return said.experiment(self._ask("GET", paths.EXPERIMENTS, name=name))
        except QueryError as error:
            if error.status == 404:
                return None
            raise

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int | None = None,
        filter_string: str | None = None,
        order_by: Sequence[str] | str | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """A page of the experiments that fit a filter."""
        return self._page(
            paths.EXPERIMENTS + "/search",
            "experiments",
            said.experiment,
            filter=filter_string,
            order_by=listed(order_by) or None,
            page_token=page_token,
            view=view(view_type),
            max_results=max_results,
        )

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """A new name."""
        self._ask("PATCH", _one(experiment_id), {"name": new_name})

    def delete_experiment(self, experiment_id: str) -> None:
        """Deleted with its runs, until it is restored."""
        self._ask("DELETE", _one(experiment_id))

    def restore_experiment(self, experiment_id: str) -> None:
        """Restored with its runs."""
        self._ask("POST", _one(experiment_id) + "/restore")

    def set_experiment_tag(self, experiment_id: str, key: str, value: Any) -> None:
        """The last value stays."""
        self._ask("POST", _one(experiment_id) + "/tags", {"tags": {key: str(value)}})

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """A tag goes."""
        self._ask("DELETE", _one(experiment_id) + "/tags", key=key)


def _one(experiment_id: str | int) -> str:
    return paths.experiment(str(whole(experiment_id, "experiment_id")))
