"""All of MLflow's tracking service that is spoken, and clear words for the rest."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.experiments import ExperimentCalls
from stepstream_ingest.mlflow.metrics import MetricCalls
from stepstream_ingest.mlflow.models import ModelCalls
from stepstream_ingest.mlflow.presigned import PresignedCalls
from stepstream_ingest.mlflow.registry import RegistryCalls
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.mlflow.runs import RunCalls
from stepstream_ingest.slices import Slices

SERVER_INFO: Final[Mapping[str, Any]] = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "artifact_serving_enabled": True,
    "multipart_uploads_enabled": True,
    "multipart_downloads_enabled": True,
}
PREFIXES: Final = ("/api", "/ajax-api")


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
    MetricCalls(logs=slices.logs, models=slices.models, history=slices.history).add_to(router)
    RegistryCalls(slices.registry, slices.origins).add_to(router)
    ModelCalls(slices.experiments, slices.models, slices.manifest).add_to(router)
    PresignedCalls(runs=slices.runs, models=slices.models, experiments=slices.experiments).add_to(router)
    for prefix in PREFIXES:
        app.router.add_get(f"{prefix}/3.0/mlflow/server-info", _server_info)
        # Last: what no route above has taken.
        for version in ("2.0", "3.0"):
            app.router.add_route("*", f"{prefix}/{version}/mlflow/{{path:.*}}", _not_spoken)


async def _server_info(_: web.Request) -> web.Response:
    return web.Response(body=orjson.dumps(SERVER_INFO), content_type="application/json")


async def _not_spoken(request: web.Request) -> web.Response:
    raise ApiError(501, "NOT_IMPLEMENTED", f"StepStream does not speak {request.method} {request.path}")
