"""Where a version of a registered model comes from: its run, its code, its data and its environment, in one answer."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from stepstream_ingest import trees
from stepstream_ingest.api import values
from stepstream_ingest.api.registry import checked_version
from stepstream_ingest.api.router import Router
from stepstream_ingest.api.values import Dataset, LoggedModel, ModelVersion, Run
from stepstream_ingest.artifacts.manifest import Manifest
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.registry.values import Version
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModels
from stepstream_ingest.tracking.runs import Runs
from stepstream_schema import paths

CODE_TAGS: Final = {
    "commit": "mlflow.source.git.commit",
    "branch": "mlflow.source.git.branch",
    "repository": "mlflow.source.git.repoURL",
    "entry_point": "mlflow.source.name",
}
ENVIRONMENT_FILES: Final = ("MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml")


class Code(Struct, kw_only=True, frozen=True):
    """What ran, as the run's tags say it."""

    commit: str | None
    branch: str | None
    repository: str | None
    entry_point: str | None


class EnvironmentFile(Struct, kw_only=True, frozen=True):
    """A file of the model that says what it needs."""

    path: str
    size: int
    sha256: str | None


class Lineage(Struct, kw_only=True, frozen=True):
    """What is known; what was removed since, or never said, is null or empty."""

    version: ModelVersion
    model: LoggedModel | None
    run: Run | None
    code: Code | None
    datasets: list[Dataset]
    environment: list[EnvironmentFile]


class LineageCalls:
    """Follows a version to what it was made of."""

    def __init__(
        self, *, registry: Registry, runs: Runs, models: LoggedModels, experiments: Experiments, manifest: Manifest
    ) -> None:
        self._registry = registry
        self._runs = runs
        self._models = models
        self._experiments = experiments
        self._manifest = manifest

    def add_to(self, router: Router) -> None:
        """Register the call."""
        router.add("GET", paths.lineage("{name}", "{version}"), self.lineage)

    async def lineage(self, name: str, version: int) -> Lineage:
        """Where a version comes from: its run, its commit, its datasets, its logged model, its environment."""
        found = await self._registry.version(name, checked_version(version))
        model = (await self._models.many([found.model_id])).get(found.model_id) if found.model_id else None
        run_id = found.run_id or (model.source_run_id if model is not None else None)
        run = await self._runs.find(run_id) if run_id is not None else None
        shown = None
        if model is not None:
            place = (await self._experiments.get(model.experiment_id)).artifact_location
            shown = values.logged_model(model, place)
        return Lineage(
            version=values.version(found),
            model=shown,
            run=values.run(run) if run is not None else None,
            code=code(run.tags) if run is not None else None,
            datasets=[values.dataset(one) for one in run.datasets] if run is not None else [],
            environment=await self._environment(found),
        )

    async def _environment(self, version: Version) -> list[EnvironmentFile]:
        place = trees.located(version.storage_location)
        if place is None:
            return []
        wanted = [f"{place.path}/{name}".lstrip("/") for name in ENVIRONMENT_FILES]
        found = await self._manifest.files(place.owner, wanted)
        return [
            EnvironmentFile(path=path, size=found[path].size, sha256=found[path].sha256)
            for path in wanted
            if path in found
        ]


def code(tags: Mapping[str, str]) -> Code | None:
    """What a run's tags say of its code."""
    said = {name: tags.get(tag) for name, tag in CODE_TAGS.items()}
    return Code(**said) if any(said.values()) else None
