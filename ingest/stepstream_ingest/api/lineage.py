"""Where a version of a registered model comes from: its run, its code, its data and its environment, in one answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
from aiohttp import web

from stepstream_ingest.artifacts.manifest import File, Manifest
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow import trees
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.registry.values import Version
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModel, LoggedModels
from stepstream_ingest.tracking.runs import Dataset, Run, Runs
from stepstream_schema import paths

CODE_TAGS: Final = {
    "commit": "mlflow.source.git.commit",
    "branch": "mlflow.source.git.branch",
    "repository": "mlflow.source.git.repoURL",
    "entry_point": "mlflow.source.name",
}
ENVIRONMENT_FILES: Final = ("MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What is known; what was removed since, or never said, is None or empty."""

    version: Version
    model: LoggedModel | None
    run: Run | None
    experiment: str | None
    environment: Sequence[File]


class LineageRoutes:
    """Follows a version to what it was made of."""

    def __init__(
        self, *, registry: Registry, runs: Runs, models: LoggedModels, experiments: Experiments, manifest: Manifest
    ) -> None:
        self._registry = registry
        self._runs = runs
        self._models = models
        self._experiments = experiments
        self._manifest = manifest

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.router.add_get(paths.lineage("{name}", "{version}"), self.lineage)

    async def lineage(self, request: web.Request) -> web.Response:
        """The lineage of one version."""
        number = request.match_info["version"]
        if not number.isdecimal() or int(number) >= 2**31:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"a version is a whole number, not {number!r:.40}")
        found = await self._follow(await self._registry.version(request.match_info["name"], int(number)))
        return web.Response(body=orjson.dumps(spoken(found)), content_type="application/json")

    async def _follow(self, version: Version) -> Lineage:
        model = (await self._models.many([version.model_id])).get(version.model_id) if version.model_id else None
        run_id = version.run_id or (model.source_run_id if model is not None else None)
        run = next(iter(await self._runs.many([run_id])), None) if run_id is not None else None
        experiment_id = run.experiment_id if run is not None else model.experiment_id if model is not None else None
        return Lineage(
            version=version,
            model=model,
            run=run,
            experiment=(await self._experiments.get(experiment_id)).name if experiment_id is not None else None,
            environment=await self._environment(version),
        )

    async def _environment(self, version: Version) -> Sequence[File]:
        place = trees.located(version.storage_location)
        if place is None:
            return []
        wanted = [f"{place.path}/{name}".lstrip("/") for name in ENVIRONMENT_FILES]
        found = await self._manifest.files(place.owner, wanted)
        return [found[path] for path in wanted if path in found]


def spoken(one: Lineage) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "version": _version(one.version),
        "model": _model(one.model) if one.model is not None else None,
        "run": _run(one.run, one.experiment) if one.run is not None else None,
        "code": _code(one.run.tags) if one.run is not None else None,
        "datasets": [_dataset(dataset) for dataset in one.run.datasets] if one.run is not None else [],
        "environment": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in one.environment],
    }


def _version(one: Version) -> dict[str, Any]:
    return {
        "name": one.name,
        "version": one.version,
        "source": one.source,
        "storage_location": one.storage_location,
        "run_id": _hex(one.run_id),
        "model_id": _model_id(one.model_id),
        "description": one.description,
        "stage": one.stage,
        "created_at_ms": one.created_at_ms,
        "updated_at_ms": one.updated_at_ms,
        "tags": dict(one.tags),
        "aliases": list(one.aliases),
    }


def _model(one: LoggedModel) -> dict[str, Any]:
    return {
        "model_id": _model_id(one.model_id),
        "name": one.name,
        "model_type": one.model_type,
        "status": one.status,
        "lifecycle_stage": one.lifecycle_stage,
        "created_at_ms": one.created_at_ms,
        "params": dict(one.params),
        "tags": dict(one.tags),
    }


def _run(one: Run, experiment: str | None) -> dict[str, Any]:
    return {
        "run_id": one.run_id.hex,
        "name": one.name,
        "experiment_id": one.experiment_id,
        "experiment": experiment,
        "user": one.user_id,
        "status": one.status,
        "lifecycle_stage": one.lifecycle_stage,
        "start_time_ms": one.start_time_ms,
        "end_time_ms": one.end_time_ms,
        "params": dict(one.params),
        "tags": dict(one.tags),
    }


def _code(tags: Mapping[str, str]) -> dict[str, str | None] | None:
    said = {name: tags.get(tag) for name, tag in CODE_TAGS.items()}
    return said if any(said.values()) else None


def _dataset(one: Dataset) -> dict[str, Any]:
    return {
        "name": one.name,
        "digest": one.digest,
        "source_type": one.source_type,
        "source": one.source,
        "schema": one.schema,
        "profile": one.profile,
        "tags": dict(one.tags),
    }


def _hex(one: UUID | None) -> str | None:
    return one.hex if one is not None else None


def _model_id(one: UUID | None) -> str | None:
    return f"m-{one.hex}" if one is not None else None
