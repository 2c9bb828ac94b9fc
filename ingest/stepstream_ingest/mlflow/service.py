"""All of MLflow's tracking service that is spoken, and clear words for the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from stepstream_ingest.artifacts.manifest import Manifest
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.experiments import ExperimentCalls
from stepstream_ingest.mlflow.metrics import MetricCalls
from stepstream_ingest.mlflow.models import ModelCalls
from stepstream_ingest.mlflow.registry import RegistryCalls
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.mlflow.runs import RunCalls
from stepstream_ingest.read.history import History
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.retention.store import Retention
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModels
from stepstream_ingest.tracking.runs import Runs
from stepstream_ingest.write.served import Served

SERVER_INFO: Final[Mapping[str, Any]] = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "artifact_serving_enabled": True,
    "multipart_uploads_enabled": True,
    "multipart_downloads_enabled": True,
}
PREFIXES: Final = ("/api", "/ajax-api")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """What the protocol is translated to."""

    experiments: Experiments
    runs: Runs
    models: LoggedModels
    registry: Registry
    history: History
    served: Served
    retention: Retention
    manifest: Manifest


def add_mlflow(app: web.Application, slices: Slices) -> None:
    """Register every endpoint."""
    router = Router(app)
    ExperimentCalls(slices.experiments).add_to(router)
    RunCalls(
        experiments=slices.experiments,
        runs=slices.runs,
        retention=slices.retention,
        manifest=slices.manifest,
    ).add_to(router)
    MetricCalls(served=slices.served, runs=slices.runs, models=slices.models, history=slices.history).add_to(router)
    RegistryCalls(slices.registry, slices.models, slices.experiments).add_to(router)
    ModelCalls(slices.experiments, slices.models, slices.manifest).add_to(router)
    for prefix in PREFIXES:
        app.router.add_get(f"{prefix}/3.0/mlflow/server-info", _server_info)
        # Last: what no route above has taken.
        for version in ("2.0", "3.0"):
            app.router.add_route("*", f"{prefix}/{version}/mlflow/{{path:.*}}", _not_spoken)


async def _server_info(_: web.Request) -> web.Response:
    return web.Response(body=orjson.dumps(SERVER_INFO), content_type="application/json")


async def _not_spoken(request: web.Request) -> web.Response:
    raise ApiError(501, "NOT_IMPLEMENTED", f"StepStream does not speak {request.method} {request.path}")
