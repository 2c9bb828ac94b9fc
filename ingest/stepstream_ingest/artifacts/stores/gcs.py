"""The border to Google's library: Cloud Storage, by V4 signed URLs.

Credentials are Google's own (GOOGLE_APPLICATION_CREDENTIALS names a service account's key, which signs). Parts are
objects of their own, which the store composes, at most 32 at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import google.auth
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from stepstream_ingest.artifacts.stores.headers import attachment, safe_type
from stepstream_ingest.artifacts.stores.root import ArtifactRoot
from stepstream_ingest.artifacts.stores.store import (
    SIGNED_FOR_S,
    Listed,
    NotDeleted,
    ObjectGone,
    Part,
    Seen,
    Signed,
    away,
)

T = TypeVar("T")
READ_BYTES: Final = 8 * 2**20
COMPOSE_AT_A_TIME: Final = 32
"""The store's bound."""
THREADS: Final = 10
"""As many as the library keeps connections; others wait."""
CONNECT_S: Final = 5.0
READ_S: Final = 15.0
"""For each answer, also to who asks for a token. A request is sent within CONNECT_S, and its body at SLOWEST."""
RETRY_S: Final = 10.0
"""No try begins later. The library's own two minutes are longer than anybody waits."""
SLOWEST: Final = 2**20
"""Bytes a second of a body that is sent."""
ENDPOINT: Final = "STEPSTREAM_ARTIFACT_PUBLIC_ENDPOINT"


class GcsStore:
    """Law of every store. The library is synchronous: it runs in threads."""

    checksum: Final = "md5"
    part_checksum: Final = "md5"

    def __init__(self, root: ArtifactRoot, environ: Mapping[str, str]) -> None:
        self._root = root
        # What signs; the client itself needs none of it where it speaks to an emulator.
        self._signer, _ = google.auth.default()
        self._client = storage.Client()
        self._bucket = self._client.bucket(root.bucket)
        self._endpoint = environ.get(ENDPOINT) or "https://storage.googleapis.com"
        self._bounds = {"timeout": (CONNECT_S, READ_S), "retry": DEFAULT_RETRY.with_timeout(RETRY_S)}
        # Its own: a store that does not answer must keep no thread from compaction.
        self._threads = ThreadPoolExecutor(THREADS, "stepstream-gcs")

    async def sign_put(self, key: str, *, size: int, checksum: str) -> Signed:
        """Size and MD5 are under the signature, and the store checks the body against both."""
        return self._signed_put(key, size, checksum)

    async def begin_parts(self, key: str, *, checked: bool) -> str:
        """Parts are objects beside the one they become."""
        return "compose"

    async def sign_part(self, key: str, token: str, *, number: int, size: int | None, checksum: str | None) -> Signed:
        """A PUT of a part's object."""
        return self._signed_put(_part_key(key, number), size, checksum)

    async def parts(self, key: str, token: str, part_bytes: int) -> Sequence[Part] | None:
        """The parts' objects."""
        found = await self._run(lambda: list(self._list(_parts(key))))
        return [
            Part(number=int(blob.name.rpartition("/")[2]), size=blob.size, token=self._root.own(blob.name))
            for blob in found
            if blob.name.rpartition("/")[2].isdigit()
        ]

    async def complete_parts(self, key: str, token: str, parts: Sequence[Part], sha256: bytes | None) -> bytes | None:
        """Compose 32 at a time, and what comes of that again, until one is left."""
        with suppress(_PartsGone):
            await self._compose_all(key, [part.token for part in parts])
        await self.abort_parts(key, token)
        return None

    async def abort_parts(self, key: str, token: str) -> None:
        """Remove the parts' objects."""
        found = await self._run(lambda: list(self._list(_parts(key))))
        await self.delete([self._root.own(blob.name) for blob in found])

    async def seen(self, key: str) -> Seen | None:
        """By its metadata; a composed object has no MD5."""
        blob = await self._run(lambda: self._bucket.get_blob(self._root.key(key), **self._bounds))
        return None if blob is None else Seen(size=int(blob.size), md5=blob.md5_hash or "")

    async def sign_get(self, key: str, *, filename: str, content_type: str) -> Signed:
        """The store answers with a type and a disposition that are under the signature."""
        said = {"response_disposition": attachment(filename), "response_type": safe_type(content_type)}
        return Signed(method="GET", url=self._url("GET", key, **said))

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Range by range."""
        seen = await self.seen(key)
        if seen is None:
            raise ObjectGone("the object is gone from the store")
        end = seen.size if length is None else min(seen.size, start + length)
        blob = self._blob(key)
        for at in range(start, end, READ_BYTES):
            last = min(end, at + READ_BYTES) - 1
            fetch = partial(blob.download_as_bytes, start=at, end=last, checksum=None, **self._bounds)
            yield await self._run(fetch)

    async def write(self, key: str, body: bytes) -> None:
        """One PUT."""
        bounds = self._bounds | {"timeout": (CONNECT_S + len(body) / SLOWEST, READ_S)}
        await self._run(lambda: self._blob(key).upload_from_string(body, "application/octet-stream", **bounds))

    async def write_part(self, key: str, token: str, number: int, body: bytes) -> None:
        """A part's object."""
        await self.write(_part_key(key, number), body)

    async def delete(self, keys: Sequence[str]) -> None:
        """One by one."""
        left: dict[str, str] = {}

        def remove(key: str) -> None:
            try:
                self._blob(key).delete(**self._bounds)
            except NotFound:
                return
            except Forbidden as error:
                # Such as one that is held.
                left[key] = str(error)

        for key in keys:
            await self._run(partial(remove, key))
        if left:
            raise NotDeleted(left)

    async def scan(self, after: str) -> AsyncIterator[Listed]:
        """Objects in pages, then parts."""
        start = self._root.key(after) if after else None
        for prefix in ("objects/", "parts/"):
            pages = iter(self._list(prefix, start_offset=start).pages)
            while page := await self._run(partial(_next_page, pages)):
                for blob in page:
                    listed = self._listed(blob)
                    if listed.parts_token or listed.key > after:
                        yield listed
            start = None

    async def close(self) -> None:
        """Close the connection pool; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _list(self, prefix: str, **said: Any) -> Any:
        return self._client.list_blobs(self._bucket, prefix=self._root.key(prefix), **said, **self._bounds)

    def _listed(self, blob: Any) -> Listed:
        key = self._root.own(blob.name)
        if not key.startswith("parts/"):
            return Listed(key=key, size=blob.size, modified_at=blob.updated)
        owner = key.split("/")[1]
        of = f"objects/{owner[:2]}/{owner}"
        return Listed(key=of, size=blob.size, modified_at=blob.updated, parts_token="compose")

    async def _compose_all(self, key: str, names: list[str]) -> None:
        level = 0
        while len(names) > COMPOSE_AT_A_TIME:
            level += 1
            groups = [names[at : at + COMPOSE_AT_A_TIME] for at in range(0, len(names), COMPOSE_AT_A_TIME)]
            names = [f"{_parts(key)}level{level}-{at:05d}" for at in range(len(groups))]
            for name, group in zip(names, groups, strict=True):
                await self._compose(name, group)
        # An object never changes: where it is there already, it stays.
        await self._compose(key, names, if_generation_match=0)

    async def _compose(self, name: str, sources: Sequence[str], **only: Any) -> None:
        def compose() -> None:
            try:
                self._blob(name).compose([self._blob(source) for source in sources], **only, **self._bounds)
            except PreconditionFailed:
                return
            except NotFound as error:
                raise _PartsGone from error

        await self._run(compose)

    def _signed_put(self, key: str, size: int | None, checksum: str | None) -> Signed:
        headers = {"Content-Type": "application/octet-stream"}
        if checksum is not None:
            headers["Content-MD5"] = checksum
        if size is not None:
            headers["x-goog-content-length-range"] = f"{size},{size}"
        return Signed(method="PUT", url=self._url("PUT", key, headers=headers), headers=headers)

    def _url(self, method: str, key: str, **said: Any) -> str:
        url: str = self._blob(key).generate_signed_url(
            version="v4",
            method=method,
            expiration=timedelta(seconds=SIGNED_FOR_S),
            credentials=self._signer,
            api_access_endpoint=self._endpoint,
            **said,
        )
        return url

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._root.key(key))

    async def _run(self, call: Callable[[], T]) -> T:
        with away(GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, OSError):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class _PartsGone(Exception):
    """Somebody else has completed the upload, or given it up."""


def _next_page(pages: Any) -> list[Any]:
    return list(next(pages, ()))


def _parts(key: str) -> str:
    return f"parts/{key.rpartition('/')[2]}/"


def _part_key(key: str, number: int) -> str:
    return f"{_parts(key)}{number:05d}"
