"""The border to aiohttp for artifacts: the server's API, and signed requests to wherever the store is."""

import json
import re
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final

import aiohttp
from yarl import URL

from stepstream.artifacts.body import SILENT_S, Body
from stepstream.artifacts.source import Checks
from stepstream.credentials import Basic
from stepstream.transport import (
    RETRY_STATUSES,
    UNAUTHORISED,
    BlockingResolver,
    Rejected,
    Unavailable,
    authorised,
    refusal,
)
from stepstream_schema import limits

API_TIMEOUT_S: Final = 600.0
"""Completing a large file reads it once in the embedded store, and may be asked for again."""
CONNECT_TIMEOUT_S: Final = 5.0
TOO_LARGE: Final = 413
REFUSES: Final = frozenset({400, 401, 403, 404})
"""How stores answer a signature that is too old, a clock that is wrong, or an upload that is gone."""
DAMAGED: Final = re.compile(
    rb"BadDigest|InvalidDigest|XAmzContent\w+Mismatch|Md5Mismatch|EntityTooLarge|INVALID_PARAMETER_VALUE"
)
"""What they say of a body itself: S3 and Google, Azure, the embedded store."""


class Refused(Exception):
    """The store does not take the request as it was signed; signed anew it may."""


class Damaged(Exception):
    """The store has looked at the body, and it is not what was announced."""


class TooLarge(Exception):
    """Something before the store takes no body of this size; it may take smaller ones."""


class Remote:
    """One server and its store; used within one event loop.

    Raises Unavailable, Rejected, Refused, Damaged and TooLarge.
    """

    def __init__(self, tracking_uri: str, token: str | None) -> None:
        self._uri = tracking_uri
        self._authorised = authorised(token, tracking_uri)
        # The embedded store needs no token; but it lies behind the proxy of its server, which may ask who comes.
        self._passing = self._authorised if isinstance(token, Basic) else ()
        self._session: aiohttp.ClientSession | None = None
        self.checks = Checks()
        """What its store checks."""

    async def __aenter__(self) -> "Remote":
        # How many are open is bounded by those who ask: waiting for one would count as connecting, which a proxy that
        # says nothing must not do for ever.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=BlockingResolver(), limit=0),
            timeout=_timeout(SILENT_S),
            trust_env=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.close()

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, works_s: float = 0.0
    ) -> dict[str, Any]:
        """Ask the server, which may work on the answer for `works_s` before it says anything."""
        timeout = _timeout(SILENT_S + works_s, total_s=API_TIMEOUT_S)
        try:
            async with self._opened.request(
                method, self._uri + path, json=body, timeout=timeout, middlewares=self._authorised
            ) as response:
                answer = await response.read()
                if response.status != 200:
                    raise refusal(response.status, response.headers.get("Retry-After"), answer)
                said: dict[str, Any] = json.loads(answer)
                return said
        except ValueError as error:
            raise Rejected(200, f"this is no StepStream server: its answer cannot be read ({error})") from error
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    async def put(self, signed: Mapping[str, Any], body: Body) -> None:
        """Send it by a signed request. Raises also what is wrong with the body's source."""
        headers = {"Content-Type": "application/octet-stream"} | signed["headers"] | {"Content-Length": str(body.size)}
        try:
            async with self._opened.request(
                signed["method"],
                self._url(signed["url"]),
                data=body if body.size else b"",
                headers=headers,
                middlewares=self._credentials(signed["url"]),
            ) as response:
                answer = await response.read()
                if response.status == TOO_LARGE:
                    raise TooLarge(_too_large(body.size, response.url.origin()))
                _check(response.status, response.headers.get("Retry-After"), answer)
                if body.error is not None:
                    raise body.error
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            if body.error is not None:
                raise body.error from error
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    async def get(self, signed: Mapping[str, Any], start: int, size: int, write: Callable[[bytes], None]) -> None:
        """Fetch a range by a signed request; `write` takes each piece, and what it raises is raised as it is."""
        async with aclosing(self._pieces(signed, start, size)) as pieces:
            async for piece in pieces:
                write(piece)

    async def _pieces(self, signed: Mapping[str, Any], start: int, size: int) -> AsyncGenerator[bytes, None]:
        headers = signed["headers"] | {"Range": f"bytes={start}-{start + size - 1}", "Accept-Encoding": "identity"}
        try:
            async with self._opened.get(
                self._url(signed["url"]), headers=headers, middlewares=self._credentials(signed["url"])
            ) as response:
                if response.status not in (200, 206):
                    _check(response.status, response.headers.get("Retry-After"), await response.read())
                # Some stores answer a range with everything.
                skip, left = start if response.status == 200 else 0, size
                async for piece in response.content.iter_chunked(2**18):
                    kept = piece[skip : skip + left]
                    skip = max(0, skip - len(piece))
                    left -= len(kept)
                    yield kept
                    if not left:
                        return
                if left:
                    raise Unavailable(f"the store hung up {left} bytes before the end")
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("a Remote is used within `async with`")
        return self._session

    def _url(self, url: str) -> URL:
        """The embedded store names a path of its own server, however this client reaches that."""
        return URL(self._uri + url if url.startswith("/") else url, encoded=True)

    def _credentials(self, url: str) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """Where the address has none for the embedded store, what .netrc knows counts."""
        return self._passing if url.startswith("/") else UNAUTHORISED


def _timeout(silent_s: float, total_s: float | None = None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, connect=SILENT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=silent_s)


def _too_large(size: int, origin: URL) -> str:
    needed = -(-max(size, limits.LARGE_PART_BYTES) // 2**20)
    return (
        f"HTTP 413: what is before {origin} takes no body of {size} bytes; let it take {needed} MiB (nginx: "
        f"client_max_body_size {needed}m), as much as one part of a large file has, and send it again"
    )


def _check(status: int, retry_after: str | None, answer: bytes) -> None:
    if status < 300:
        return
    if status in RETRY_STATUSES:
        raise refusal(status, retry_after, answer)
    said = answer[:300].decode("utf-8", "replace")
    if status == 400 and DAMAGED.search(answer):
        raise Damaged(f"HTTP {status}: {said}")
    if status in REFUSES:
        raise Refused(f"HTTP {status}: {said}")
    raise Rejected(status, f"the store answered HTTP {status}: {said}")
