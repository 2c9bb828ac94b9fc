"""MLflow's proxied artifacts: PUT, GET, list, DELETE, uploads in parts, presigned downloads.

What a GET asks for is redirected to where it lies; a PUT must be carried, since its client sends the body at once.
"""

import mimetypes
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote
from uuid import UUID

import orjson
from aiohttp import web
from yarl import URL

from stepstream_ingest import trees
from stepstream_ingest.artifacts.manifest import MAX_LISTED, Entry, File, Manifest, checked, checked_directory, place_of
from stepstream_ingest.artifacts.stores.directory import READ_BYTES
from stepstream_ingest.artifacts.stores.store import Store
from stepstream_ingest.artifacts.upload import Told
from stepstream_ingest.artifacts.uploads import Uploads
from stepstream_ingest.bodies import json_object
from stepstream_ingest.errors import ApiError
from stepstream_schema import limits

PREFIXES: Final = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")
INVALID: Final = "INVALID_PARAMETER_VALUE"
MAX_PAGES: Final = 1000
"""A directory of a million entries; MLflow's protocol has no pages here."""


class MlflowArtifactRoutes:
    """The `mlflow-artifacts` service."""

    def __init__(self, manifest: Manifest, uploads: Uploads) -> None:
        self._manifest = manifest
        self._uploads = uploads

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        for prefix in PREFIXES:
            app.router.add_get(prefix + "/artifacts", self.list)
            app.router.add_put(prefix + "/artifacts/{path:.+}", self.put)
            app.router.add_get(prefix + "/artifacts/{path:.+}", self.get)
            app.router.add_delete(prefix + "/artifacts/{path:.+}", self.delete)
            app.router.add_get(prefix + "/presigned/{path:.+}", self.presigned)
            for action in (self.create_parts, self.complete_parts, self.abort_parts):
                name = action.__name__.removesuffix("_parts")
                app.router.add_post(prefix + f"/mpu/{name}", action)
                app.router.add_post(prefix + f"/mpu/{name}/{{path:.*}}", action)

    async def put(self, request: web.Request) -> web.Response:
        """Carry one file to the store."""
        entry = _entry(request.match_info["path"], request.headers.get("Content-Type"))
        await self._uploads.carry(entry, request.content.iter_chunked(READ_BYTES))
        return _json({})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Say where the file is."""
        return await redirect(self._uploads.store, await self._file(request.match_info["path"]))

    async def list(self, request: web.Request) -> web.Response:
        """What lies directly in ?path=, by its last names."""
        path = request.query.get("path", "")
        asked = _place(path)
        files = await children(self._manifest, asked.owner, asked.path, full_paths=False)
        if not files and unquote(path) != path:
            # Its clients do not quote the path of a PUT: what they logged to `a%20b` arrived as `a b`.
            asked = _place(unquote(path))
            files = await children(self._manifest, asked.owner, asked.path, full_paths=False)
        return _json({"files": files})

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a file or a directory."""
        asked = _place(request.match_info["path"])
        await self._manifest.remove(asked.owner, asked.path)
        return _json({})

    async def presigned(self, request: web.Request) -> web.Response:
        """A URL that fetches the file, with its size: the client then fetches ranges side by side."""
        file = await self._file(request.match_info["path"])
        signed = await self._uploads.store.sign_get(
            file.key, filename=file.path.rpartition("/")[2], content_type=file.content_type
        )
        url = absolute(request, signed.url)
        return _json({"url": url, "headers": dict(signed.headers), "file_size": file.size})

    async def create_parts(self, request: web.Request) -> web.Response:
        """Begin an upload in parts, and sign all of them."""
        body = await json_object(request, INVALID)
        count = body.get("num_parts")
        if type(count) is not int or not 1 <= count <= limits.MAX_PARTS:
            raise _invalid(f"num_parts must lie between 1 and {limits.MAX_PARTS}")
        upload, signed = await self._uploads.begin_parts(_entry(_joined(request, body), None), count)
        credentials = [
            {"url": absolute(request, one.url), "part_number": number, "headers": dict(one.headers)}
            for number, one in enumerate(signed, 1)
        ]
        return _json({"upload_id": upload.upload_id.hex, "credentials": credentials})

    async def complete_parts(self, request: web.Request) -> web.Response:
        """Make them one file; which parts there are is asked of the store, and must be what the client says."""
        body = await json_object(request, INVALID)
        await self._uploads.complete(_upload_id(body), Told(part_count=_part_count(body)))
        return _json({})

    async def abort_parts(self, request: web.Request) -> web.Response:
        """Give the upload up."""
        await self._uploads.abort(_upload_id(await json_object(request, INVALID)))
        return _json({})

    async def _file(self, path: str) -> File:
        asked = _place(path)
        found = (await self._manifest.files(asked.owner, [asked.path])).get(asked.path)
        if found is not None:
            return found
        if await self._manifest.tree(asked.owner, asked.path, "", 1):
            raise _invalid(f"{path} is a directory; list it, and fetch its files")
        raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no artifact {path!r:.300}")


async def redirect(store: Store, file: File) -> web.Response:
    """To where the file lies, for a while."""
    signed = await store.sign_get(file.key, filename=file.path.rpartition("/")[2], content_type=file.content_type)
    return web.Response(status=302, headers={"Location": signed.url, "Cache-Control": "no-store"})


async def children(manifest: Manifest, owner: UUID, path: str, *, full_paths: bool) -> list[dict[str, Any]]:
    """What lies directly in a directory, as MLflow says it."""
    found: list[dict[str, Any]] = []
    after = ""
    for _ in range(MAX_PAGES):
        page = await manifest.children(owner, path, after, MAX_LISTED)
        found += page
        if len(page) < MAX_LISTED:
            break
        after = place_of(page[-1])
    return [_said(one, full_paths=full_paths) for one in found]


def absolute(request: web.Request, url: str) -> str:
    """A URL of the embedded store as MLflow's client needs it; behind a proxy, by what the proxy says of itself."""
    if not url.startswith("/"):
        return url
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme).split(",")[0].strip()
    host = request.headers.get("X-Forwarded-Host", request.host).split(",")[0].strip()
    return str(URL(f"{scheme}://{host}{url}", encoded=True))


def _said(one: Mapping[str, Any], *, full_paths: bool) -> dict[str, Any]:
    path = one["path"] if full_paths else one["path"].rpartition("/")[2]
    return (
        {"path": path, "is_dir": True} if one["is_dir"] else {"path": path, "is_dir": False, "file_size": one["size"]}
    )


def _entry(proxied: str, content_type: str | None) -> Entry:
    asked = _place(proxied)
    if not asked.path:
        raise _invalid("Invalid path: it names a whole tree and no file")
    return entry_at(asked.owner, asked.path, content_type)


def entry_at(owner: UUID, path: str, content_type: str | None) -> Entry:
    """A file that is about to be carried to the store."""
    guessed = mimetypes.guess_type(path)[0] or "application/octet-stream"
    said = content_type if content_type and "/" in content_type and len(content_type) < 200 else guessed
    now = time.time_ns() // 1_000_000
    return Entry(owner=owner, path=path, size=-1, content_type=said, logged_at_ms=now, rank=None)


def _place(proxied: str) -> trees.Place:
    asked = trees.place(checked_directory(proxied))
    return replace(asked, path=checked(asked.path)) if asked.path else asked


def _joined(request: web.Request, body: Mapping[str, Any]) -> str:
    # Clients up to 3.17 send the local path; only its name counts.
    name = str(body.get("path", "")).rpartition("/")[2]
    folder = request.match_info.get("path", "")
    return f"{folder}/{name}" if folder else name


def _upload_id(body: Mapping[str, Any]) -> UUID:
    try:
        return UUID(str(body.get("upload_id")))
    except ValueError:
        raise _invalid("upload_id must be the one that create answered") from None


def _part_count(body: Mapping[str, Any]) -> int:
    parts = body.get("parts")
    said = parts if isinstance(parts, list) else []
    numbers = {number for one in said if isinstance(one, dict) and type(number := one.get("part_number")) is int}
    if not said or numbers != set(range(1, len(said) + 1)):
        raise _invalid("parts is the list of all parts that were sent, each with its part_number, from 1 without gaps")
    return len(said)


def _invalid(message: str) -> ApiError:
    return ApiError(400, INVALID, message)


def _json(said: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(said), content_type="application/json")
