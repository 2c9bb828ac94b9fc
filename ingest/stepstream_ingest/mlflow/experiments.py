"""MLflow's experiment endpoints."""

from collections.abc import Mapping
from typing import Any, Final

from stepstream_ingest import filters, pages
from stepstream_ingest.mlflow.fields import Fields, experiment_number
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.mlflow.values import view_type
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.experiments import Experiment, Experiments

MAX_PAGE: Final = 50_000


class ExperimentCalls:
    """Translates to the slice `tracking`."""

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("experiments/create", self.create)
        router.get("experiments/get", self.get)
        router.get("experiments/get-by-name", self.get_by_name)
        for add in (router.get, router.post):
            add("experiments/search", self.search)
        router.post("experiments/delete", self.delete)
        router.post("experiments/restore", self.restore)
        router.post("experiments/update", self.update)
        router.post("experiments/set-experiment-tag", self.set_tag)
        router.post("experiments/delete-experiment-tag", self.delete_tag)

    async def create(self, said: Fields) -> Mapping[str, Any]:
        """A new experiment."""
        name = said.required_text("name")
        number = await self._experiments.create(name, said.text("artifact_location", ""), dict(said.pairs("tags")))
        return {"experiment_id": str(number)}

    async def get(self, said: Fields) -> Mapping[str, Any]:
        """One by its number."""
        return {"experiment": _experiment(await self._experiments.get(_number(said)))}

    async def get_by_name(self, said: Fields) -> Mapping[str, Any]:
        """One by its name."""
        return {"experiment": _experiment(await self._experiments.by_name(said.required_text("experiment_name")))}

    async def search(self, said: Fields) -> Mapping[str, Any]:
        """A page of the experiments that fit a filter."""
        limit = said.integer("max_results", 0)
        if not 1 <= limit <= MAX_PAGE:
            raise rules.invalid(f"Invalid value {limit} for parameter 'max_results': it lies between 1 and {MAX_PAGE}")
        text, orders = said.text("filter", ""), [filters.parse_order(one) for one in said.texts("order_by")]
        stage = view_type(said, "view_type")
        offset = pages.offset(said.text("page_token", ""), (text, orders, stage))
        found = await self._experiments.search(filters.parse(text), orders, stage=stage, limit=limit + 1, offset=offset)
        answer: dict[str, Any] = {"experiments": [_experiment(one) for one in found[:limit]]} if found else {}
        more = len(found) > limit
        return answer | ({"next_page_token": pages.token(offset + limit, (text, orders, stage))} if more else {})

    async def delete(self, said: Fields) -> Mapping[str, Any]:
        """Deleted, with its runs."""
        await self._experiments.delete(_number(said))
        return {}

    async def restore(self, said: Fields) -> Mapping[str, Any]:
        """Restored, with its runs."""
        await self._experiments.restore(_number(said))
        return {}

    async def update(self, said: Fields) -> Mapping[str, Any]:
        """A new name."""
        await self._experiments.rename(_number(said), said.required_text("new_name"))
        return {}

    async def set_tag(self, said: Fields) -> Mapping[str, Any]:
        """A tag."""
        await self._experiments.set_tag(_number(said), said.required_text("key"), said.text("value", ""))
        return {}

    async def delete_tag(self, said: Fields) -> Mapping[str, Any]:
        """No tag."""
        await self._experiments.delete_tag(_number(said), said.required_text("key"))
        return {}


def _number(said: Fields) -> int:
    return experiment_number(said.required_text("experiment_id"))


def _experiment(found: Experiment) -> Mapping[str, Any]:
    answer = {
        "experiment_id": str(found.experiment_id),
        "name": found.name,
        "artifact_location": found.artifact_location,
        "lifecycle_stage": found.lifecycle_stage,
        "last_update_time": found.updated_at_ms,
        "creation_time": found.created_at_ms,
    }
    tags = [{"key": key, "value": value} for key, value in found.tags.items()]
    return answer | ({"tags": tags} if tags else {})
