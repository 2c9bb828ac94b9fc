"""Logged models, as MlflowClient asks for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepstream.entities import LoggedModel, PagedList
from stepstream.tracking import said
from stepstream.tracking.asking import Asking, ids, texts, whole
from stepstream_schema import paths


class Models(Asking):
    """Makes, finds and changes logged models. Raises QueryError."""

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """A model that is about to be logged."""
        body = {
            "experiment_id": whole(experiment_id, "experiment_id"),
            "name": name or "",
            "source_run_id": source_run_id,
            "tags": texts(tags),
            "params": texts(params),
            "model_type": model_type or "",
        }
        return said.logged_model(self._ask("POST", paths.LOGGED_MODELS, body))

    def get_logged_model(self, model_id: str) -> LoggedModel:
        """One logged model."""
        return said.logged_model(self._ask("GET", paths.logged_model(model_id)))

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        datasets: Sequence[Mapping[str, str]] | None = None,
        max_results: int | None = None,
        order_by: Sequence[Mapping[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """A page of the logged models that fit a filter.

        Each order is {"field_name": ..., "ascending": ...}; with "dataset_name" and "dataset_digest" a metric counts as
        measured on that dataset.
        """
        orders = [{name: value for name, value in one.items() if value is not None} for one in order_by or ()]
        on = [{"name": one["dataset_name"], "digest": one.get("dataset_digest") or ""} for one in datasets or ()]
        return self._page(
            paths.LOGGED_MODELS + "/search",
            "models",
            said.logged_model,
            experiment_ids=ids(experiment_ids),
            filter=filter_string,
            datasets=on or None,
            max_results=max_results,
            order_by=orders or None,
            page_token=page_token,
        )

    def finalize_logged_model(self, model_id: str, status: str) -> LoggedModel:
        """Its files have arrived (READY), or never will (UPLOAD_FAILED)."""
        return said.logged_model(self._ask("PATCH", paths.logged_model(model_id), {"status": str(status)}))

    def delete_logged_model(self, model_id: str) -> None:
        """Deleted."""
        self._ask("DELETE", paths.logged_model(model_id))

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, Any]) -> None:
        """The last values stay."""
        self._ask("POST", paths.logged_model(model_id) + "/tags", {"tags": texts(tags)})

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """A tag goes."""
        self._ask("DELETE", paths.logged_model(model_id) + "/tags", key=key)

    def log_model_params(self, model_id: str, params: Mapping[str, Any]) -> None:
        """Params that it does not have yet."""
        self._ask("POST", paths.logged_model(model_id) + "/params", {"params": texts(params)})
