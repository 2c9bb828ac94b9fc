"""All of our own JSON API that goes over several slices, and the document that describes every route below /v1."""

from functools import cache

import orjson
from aiohttp import web

from stepstream_ingest import openapi
from stepstream_ingest.api.experiments import ExperimentCalls
from stepstream_ingest.api.garbage import GarbageCalls
from stepstream_ingest.api.lineage import LineageCalls
from stepstream_ingest.api.logged_models import LoggedModelCalls
from stepstream_ingest.api.registry import RegistryCalls
from stepstream_ingest.api.router import Router
from stepstream_ingest.api.runs import RunCalls
from stepstream_ingest.slices import Slices
from stepstream_schema import paths


def add_api(app: web.Application, slices: Slices, version: str) -> None:
    """Register every call; the document is written when somebody first asks for it."""
    router = Router(app)
    ExperimentCalls(slices.experiments, slices.retention).add_to(router)
    RunCalls(
        experiments=slices.experiments,
        runs=slices.runs,
        models=slices.models,
        logs=slices.logs,
        retention=slices.retention,
    ).add_to(router)
    LoggedModelCalls(slices.experiments, slices.models).add_to(router)
    RegistryCalls(slices.registry, slices.origins).add_to(router)
    LineageCalls(
        registry=slices.registry,
        runs=slices.runs,
        models=slices.models,
        experiments=slices.experiments,
        manifest=slices.manifest,
    ).add_to(router)
    GarbageCalls(slices.retention).add_to(router)

    @cache
    def written() -> bytes:
        return orjson.dumps(openapi.document(app, version))

    @openapi.describes(answer=dict)
    async def document(_: web.Request) -> web.Response:
        """This document: every route below /v1, as OpenAPI 3.1."""
        return web.Response(body=written(), content_type=openapi.JSON)

    app.router.add_get(paths.OPENAPI, document)
