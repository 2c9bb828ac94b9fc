"""MLflow's experiment endpoints."""

from collections.abc import Mapping
from typing import Any

from stepstream_ingest.mlflow.fields import Fields, experiment_number
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.tracking.experiments import Experiment, Experiments


class ExperimentCalls:
    """Translates to the slice `tracking`."""

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("experiments/create", self.create)
        router.get("experiments/get", self.get)
        router.get("experiments/get-by-name", self.get_by_name)
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
