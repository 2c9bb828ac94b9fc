"""The embedded store over HTTP: PUT and GET by signed URLs, and nothing else."""

from aiohttp import web

from stepstream_ingest.artifacts import messages
from stepstream_ingest.artifacts.carried import heard
from stepstream_ingest.artifacts.stores.directory import READ_BYTES, DirectoryStore
from stepstream_ingest.artifacts.stores.headers import DOWNLOAD_HEADERS, attachment, safe_type
from stepstream_ingest.artifacts.stores.signature import BadSignature, Permit
from stepstream_ingest.artifacts.stores.store import StoreRefused
from stepstream_ingest.errors import ApiError
from stepstream_ingest.openapi import BYTES, describes
from stepstream_schema import paths


class StoreRoutes:
    """What the signature permits, and nothing besides."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_put(paths.STORE + "/{key:.+}", self.put)
        app.router.add_get(paths.STORE + "/{key:.+}", self.get)

    @describes(query=messages.Signature, body=bytes, body_type=BYTES, answer_types=())
    async def put(self, request: web.Request) -> web.Response:
        """Take one object, or one part."""
        permit = self._permit(request, "PUT")
        length = request.content_length
        if length is not None and 0 <= permit.size != length:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"the body has {length} bytes, not the {permit.size} signed")
        try:
            await self._store.receive(permit, heard(request.content.iter_chunked(READ_BYTES)))
        except StoreRefused as error:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", str(error)) from error
        return web.Response(headers={"ETag": f'"{permit.part or permit.key.rpartition("/")[2]}"'})

    @describes(query=messages.Signature, answer_types=(BYTES,))
    async def get(self, request: web.Request) -> web.StreamResponse:
        """Hand out one object, or a range of it."""
        permit = self._permit(request, "GET")
        path = self._store.path(permit.key)
        if not path.is_file():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", "the object is gone from the store")
        said = {"Content-Type": safe_type(permit.type), "Content-Disposition": attachment(permit.filename)}
        return web.FileResponse(path, headers=DOWNLOAD_HEADERS | said)

    def _permit(self, request: web.Request, method: str) -> Permit:
        try:
            return self._store.permit(method, request.match_info["key"], request.query)
        except BadSignature as error:
            raise ApiError(403, "PERMISSION_DENIED", str(error)) from error
