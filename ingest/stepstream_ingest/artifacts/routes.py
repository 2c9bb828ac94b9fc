"""Artifacts over HTTP: announced, listed, fetched, previewed, removed, collected."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

import orjson
from aiohttp import web

from stepstream_ingest.artifacts import announce, messages
from stepstream_ingest.artifacts.announce import invalid
from stepstream_ingest.artifacts.collect import Collector
from stepstream_ingest.artifacts.manifest import MAX_LISTED, File, Manifest, checked, checked_directory, place_of
from stepstream_ingest.artifacts.preview import Previews
from stepstream_ingest.artifacts.stores.headers import DOWNLOAD_HEADERS
from stepstream_ingest.artifacts.stores.store import Signed
from stepstream_ingest.artifacts.upload import Begun, Told
from stepstream_ingest.artifacts.uploads import Uploads
from stepstream_ingest.bodies import json_object
from stepstream_ingest.errors import ApiError
from stepstream_ingest.openapi import JSON, Nothing, describes
from stepstream_schema import limits, paths

COMPLETED_AT_ONCE: Final = 16
COLLECT_S: Final = 1.0
MAX_GRACE_S: Final = 366 * 86_400.0


class ArtifactRoutes:
    """The tree of each run, at /v1/runs/{run_id}/artifacts."""

    def __init__(self, manifest: Manifest, uploads: Uploads, previews: Previews, collector: Collector) -> None:
        self._manifest = manifest
        self._uploads = uploads
        self._previews = previews
        self._collector = collector

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        tree = paths.run_artifacts("{run_id}")
        app.router.add_get(tree, self.list)
        app.router.add_delete(tree, self.remove)
        app.router.add_post(tree + "/uploads", self.begin)
        app.router.add_post(tree + "/urls", self.urls)
        app.router.add_get(tree + "/content", self.content)
        app.router.add_get(tree + "/preview", self.preview)
        app.router.add_post(paths.UPLOADS + "/complete", self.complete)
        app.router.add_post(paths.upload("{upload_id}") + "/parts", self.sign_parts)
        app.router.add_delete(paths.upload("{upload_id}"), self.abort)
        app.router.add_post(paths.ARTIFACT_GC, self.collect)

    @describes(path={"run_id": UUID}, query=messages.Directory, answer=messages.Listing)
    async def list(self, request: web.Request) -> web.Response:
        """What lies in ?path=, or with ?recursive=1 below it; pages by ?after=."""
        owner = _id(request, "run_id")
        directory = checked_directory(request.query.get("path", ""))
        limit = _limit(request.query.get("limit"))
        after = request.query.get("after", "")
        read = self._manifest.tree if _flag(request, "recursive") else self._manifest.children
        files = await read(owner, directory, after, limit + 1)
        if not files and not after:
            await self._manifest.check_run(owner)
        said: dict[str, Any] = {"files": files[:limit]}
        if len(files) > limit:
            last = files[limit - 1]
            said["next"] = last["path"] if _flag(request, "recursive") else place_of(last)
        return _json(said)

    @describes(path={"run_id": UUID}, query=messages.Path, answer=messages.Removed)
    async def remove(self, request: web.Request) -> web.Response:
        """Take ?path= from the tree; with ?path= empty, everything."""
        if "path" not in request.query:
            raise invalid("say which path to remove; an empty one removes all artifacts of the run")
        path = checked_directory(request.query["path"])
        removed = await self._manifest.remove(_id(request, "run_id"), path)
        if not removed and path:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no artifact {path!r:.300} in this run")
        return _json({"removed": removed})

    @describes(path={"run_id": UUID}, body=messages.Announcement, answer=messages.BegunFiles)
    async def begin(self, request: web.Request) -> web.Response:
        """Announce files, and be told how to send each; what is refused is refused alone."""
        owner = _id(request, "run_id")
        body = await json_object(request)
        rank = body.get("rank")
        if rank is not None and (type(rank) is not int or not 0 <= rank < 2**31):
            raise invalid("rank is a whole number from 0, or null")
        answers: list[dict[str, Any] | None] = []
        good = []
        needs_md5 = self._uploads.store.checksum == "md5"
        for said in _files(body):
            try:
                good.append(announce.announced(owner, rank, said, needs_md5=needs_md5))
                answers.append(None)
            except ApiError as error:
                answers.append(_refused(error.code, error.message))
        if good:
            await self._manifest.admit(owner)
        problems = await self._manifest.hidden(owner, [one.entry.path for one in good])
        free = [one for one, problem in zip(good, problems, strict=True) if problem is None]
        begun = iter(await self._uploads.begin(owner, free) if free else ())
        found = iter(
            [
                _refused("INVALID_PARAMETER_VALUE", problem) if problem else self._begun(next(begun))
                for problem in problems
            ]
        )
        return _json({"files": [one or next(found) for one in answers]})

    @describes(path={"upload_id": UUID}, body=messages.WantedParts, answer=messages.SignedParts)
    async def sign_parts(self, request: web.Request) -> web.Response:
        """Requests that send these parts."""
        parts = announce.parts((await json_object(request)).get("parts"))
        signed = await self._uploads.sign_parts(_id(request, "upload_id"), parts)
        return _json(
            {"parts": [{"number": number, **_signed(one)} for (number, _, _), one in zip(parts, signed, strict=True)]}
        )

    @describes(body=messages.SentUploads, answer=messages.CompletedFiles)
    async def complete(self, request: web.Request) -> web.Response:
        """List files that have arrived; what has not is told alone."""
        said = (await json_object(request)).get("uploads")
        if not isinstance(said, list) or not 1 <= len(said) <= limits.MAX_FILES_PER_REQUEST:
            raise invalid(f"uploads is a list of 1 to {limits.MAX_FILES_PER_REQUEST} uploads")
        # Side by side: each asks the store whether its object is there.
        limit = asyncio.Semaphore(COMPLETED_AT_ONCE)

        async def one(upload: object) -> dict[str, Any]:
            async with limit:
                return await self._complete(upload)

        return _json({"files": await asyncio.gather(*map(one, said))})

    @describes(path={"upload_id": UUID}, answer=Nothing)
    async def abort(self, request: web.Request) -> web.Response:
        """Give an upload up."""
        await self._uploads.abort(_id(request, "upload_id"))
        return _json({})

    @describes(path={"run_id": UUID}, body=messages.WantedFiles, answer=messages.FetchedFiles)
    async def urls(self, request: web.Request) -> web.Response:
        """Requests that fetch files."""
        wanted = _files(await json_object(request), "paths")
        found = await self._manifest.files(_id(request, "run_id"), [checked(str(path)) for path in wanted])
        return _json({"files": [await self._fetch(str(path), found.get(str(path))) for path in wanted]})

    @describes(path={"run_id": UUID}, query=messages.Path, status=302, answer_types=())
    async def content(self, request: web.Request) -> web.Response:
        """Where ?path= can be downloaded: a redirect, so that the bytes never pass through here."""
        file = await self._manifest.file(_id(request, "run_id"), checked(request.query.get("path", "")))
        signed = await self._get(file)
        return web.Response(status=302, headers={"Location": signed.url, "Cache-Control": "no-store"})

    @describes(path={"run_id": UUID}, query=messages.Path, answer=messages.Preview, answer_types=(JSON, "image/*"))
    async def preview(self, request: web.Request) -> web.Response:
        """The beginning of ?path= as something to look at: text, JSON, a table or an image."""
        file = await self._manifest.file(_id(request, "run_id"), checked(request.query.get("path", "")))
        preview = await self._previews.of(file)
        headers = DOWNLOAD_HEADERS | {"Content-Type": preview.content_type}
        return web.Response(body=preview.body, headers=headers)

    @describes(body=messages.ArtifactCollection, answer=messages.CollectedArtifacts)
    async def collect(self, request: web.Request) -> web.Response:
        """Remove for a second what nothing refers to, or with dry_run say what there is."""
        body = await json_object(request)
        grace = body.get("grace_s", 86_400)
        if type(grace) not in (int, float) or not 0 <= grace <= MAX_GRACE_S:
            raise invalid("grace_s is a number of seconds, at most a year")
        after = body.get("after", "")
        if not isinstance(after, str):
            raise invalid("after is what the last answer called next")
        step = await self._collector.step(grace, after, COLLECT_S, dry_run=bool(body.get("dry_run")))
        return _json(asdict(step))

    async def _complete(self, said: object) -> dict[str, Any]:
        match said:
            case {"upload_id": str(text)} if isinstance(said, dict):
                size, sha256 = said.get("size"), announce.hashed(said.get("sha256"), text)
            case _:
                raise invalid("each upload is an object with upload_id, and with size and sha256 where they were open")
        if size is not None and (type(size) is not int or not 0 <= size <= limits.MAX_ARTIFACT_BYTES):
            raise invalid(f"size is a number of bytes from 0 to {limits.MAX_ARTIFACT_BYTES}")
        checksums = said.get("checksums", [])
        if not isinstance(checksums, list) or not all(isinstance(one, str) for one in checksums):
            raise invalid("checksums is a list of base64 texts, one a part")
        try:
            await self._uploads.complete(_uuid(text), Told(size=size, sha256=sha256, checksums=checksums))
        except ApiError as error:
            return {"upload_id": text, **_refused(error.code, error.message)}
        return {"upload_id": text, "state": "stored"}

    def _begun(self, begun: Begun) -> dict[str, Any]:
        if begun.upload is None:
            return {"state": "stored"}
        said: dict[str, Any] = {"upload_id": begun.upload.upload_id.hex}
        if begun.put is not None:
            return said | {"state": "put"} | _signed(begun.put)
        return said | {
            "state": "parts",
            "part_bytes": begun.upload.part_bytes,
            "checksum": self._uploads.store.part_checksum,
            "have": [{"number": part.number, "size": part.size} for part in begun.have],
        }

    async def _fetch(self, path: str, file: File | None) -> dict[str, Any]:
        if file is None:
            return {"path": path, "state": "missing"}
        said = {"path": path, "state": "stored", "size": file.size, "sha256": file.sha256}
        return said | _signed(await self._get(file))

    async def _get(self, file: File) -> Signed:
        name = file.path.rpartition("/")[2]
        return await self._uploads.store.sign_get(file.key, filename=name, content_type=file.content_type)


def _refused(code: str, message: str) -> dict[str, Any]:
    return {"state": "refused", "code": code, "message": message}


def _signed(signed: Signed) -> dict[str, Any]:
    return {"method": signed.method, "url": signed.url, "headers": dict(signed.headers)}


def _files(body: Mapping[str, Any], name: str = "files") -> list[Any]:
    said = body.get(name)
    if not isinstance(said, list) or not 1 <= len(said) <= limits.MAX_FILES_PER_REQUEST:
        raise invalid(f"{name} is a list of 1 to {limits.MAX_FILES_PER_REQUEST} entries")
    return said


def _limit(text: str | None) -> int:
    try:
        limit = int(text or MAX_LISTED)
    except ValueError:
        limit = 0
    if not 1 <= limit <= MAX_LISTED:
        raise invalid(f"limit must lie between 1 and {MAX_LISTED}, not {text!r:.40}")
    return limit


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "") in ("1", "true")


def _id(request: web.Request, name: str) -> UUID:
    return _uuid(request.match_info[name])


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise invalid(f"an id is 32 hex digits, not {text[:60]!r}") from None


def _json(said: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(said), content_type="application/json")
