"""How MLflow's page, and people with a link, reach artifacts: by run, by model version, by logged model."""

from typing import Final
from uuid import UUID

import orjson
from aiohttp import web

from stepstream_ingest import trees
from stepstream_ingest.artifacts.manifest import Manifest, checked
from stepstream_ingest.artifacts.stores.directory import READ_BYTES
from stepstream_ingest.artifacts.uploads import Uploads
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.artifacts import entry_at, redirect
from stepstream_ingest.mlflow.fields import missing, run_uuid
from stepstream_ingest.registry import rules
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.tracking.models import model_uuid

MAX_UPLOAD_BYTES: Final = 10 * 2**20
"""As MLflow has it: larger files go by the proxy, or straight to the store."""


class BrowserRoutes:
    """Every file is answered by a redirect to where it lies, for download and never for display."""

    def __init__(self, manifest: Manifest, uploads: Uploads, registry: Registry) -> None:
        self._manifest = manifest
        self._uploads = uploads
        self._registry = registry

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get("/get-artifact", self.of_run)
        app.router.add_get("/model-versions/get-artifact", self.of_version)
        for prefix in ("/api", "/ajax-api"):
            app.router.add_get(prefix + "/2.0/mlflow/logged-models/{model_id}/artifacts/files", self.of_model)
        app.router.add_post("/ajax-api/2.0/mlflow/upload-artifact", self.upload)

    async def of_run(self, request: web.Request) -> web.Response:
        """A file of a run: ?run_id=&path=."""
        return await self._redirect(_run(request), _asked(request, "path"))

    async def of_version(self, request: web.Request) -> web.Response:
        """A file of a model version: ?name=&version=&path=."""
        name, number = _asked(request, "name"), _asked(request, "version")
        location = (await self._registry.version(name, rules.version_number(number))).storage_location
        place = trees.located(location)
        if place is None:
            raise _invalid(f"version {number} of {name!r} lies in a store of its own: {location}")
        return await self._redirect(place.owner, f"{place.path}/{_asked(request, 'path')}".lstrip("/"))

    async def of_model(self, request: web.Request) -> web.Response:
        """A file of a logged model: ?artifact_file_path=."""
        return await self._redirect(model_uuid(request.match_info["model_id"]), _asked(request, "artifact_file_path"))

    async def upload(self, request: web.Request) -> web.Response:
        """Store a small file of a run: ?run_id=&path=, and its bytes as the body."""
        size = request.content_length
        if size is None or size > MAX_UPLOAD_BYTES:
            raise _invalid(
                f"Artifact size is too large, or not said: a body of at most {MAX_UPLOAD_BYTES} bytes has a "
                "Content-Length. Larger files go to /api/2.0/mlflow-artifacts/artifacts."
            )
        entry = entry_at(_run(request), checked(_asked(request, "path")), request.headers.get("Content-Type"))
        await self._uploads.carry(entry, request.content.iter_chunked(READ_BYTES))
        return web.Response(body=orjson.dumps({}), content_type="application/json")

    async def _redirect(self, owner: UUID, path: str) -> web.Response:
        return await redirect(self._uploads.store, await self._manifest.file(owner, checked(path)))


def _run(request: web.Request) -> UUID:
    text = request.query.get("run_id") or request.query.get("run_uuid")
    if not text:
        raise missing("run_id")
    return run_uuid(text)


def _asked(request: web.Request, name: str) -> str:
    value = request.query.get(name)
    if not value:
        raise missing(name)
    return value


def _invalid(message: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)
