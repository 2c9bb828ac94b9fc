"""Bodies of requests, read whole: within a time, and within what all of them together may take."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final

import orjson
from aiohttp import web

from stepstream_ingest import telemetry
from stepstream_ingest.admission import Admission
from stepstream_ingest.errors import ApiError
from stepstream_schema import limits

BODY_TIMEOUT_S: Final = 60.0
"""A body that is still on its way then gives its room back: its sender waits no longer either."""
SMALL_BYTES: Final = 64 * 2**10
"""Such bodies need no room of their own: large ones that are slow must not keep them out."""
RETRY_S: Final = 1
ROOM: Final = web.AppKey("room", Admission)
"""For the large bodies that are on their way, together."""


async def whole(request: web.Request, most: int = limits.MAX_REQUEST_BYTES) -> bytes:
    """The body of at most so many bytes, to be read once, if there is room for it. Raises what `read` raises."""
    async with _in_time():
        if _is_told(request):
            size = request.content_length or 0
            if size <= SMALL_BYTES:
                return await _read(request, most)
            with _room(request, min(size, most)):
                return await _read(request, most)
        # How much will come nobody knows before it has.
        body = io.BytesIO()
        with ExitStack() as rooms:
            known = SMALL_BYTES
            while not await _fill(body, request, known):
                if known == most:
                    raise _too_large(most)
                # Room for what has come, and as much again: for all that may come would keep others out.
                more = min(known, most - known)
                rooms.enter_context(_room(request, more))
                known += more
        return body.getvalue()


@contextmanager
def _room(request: web.Request, size: int) -> Iterator[None]:
    room = request.app[ROOM]
    if not room.try_admit(size):
        telemetry.REQUESTS_TURNED_AWAY.labels("bodies full").inc()
        raise ApiError(429, "QUEUE_FULL", "too many large requests are on their way; nothing of this is done", RETRY_S)
    try:
        yield
    finally:
        room.release(size)


async def json_object(request: web.Request, error_code: str = "MALFORMED") -> dict[str, Any]:
    """The body, which is a JSON object; an empty body is an empty one. Raises what `whole` raises, and ApiError."""
    try:
        said = orjson.loads(await whole(request) or b"{}")
    except orjson.JSONDecodeError as error:
        raise ApiError(400, error_code, f"the body is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise ApiError(400, error_code, "the body is not a JSON object")
    return said


async def read(request: web.Request) -> bytes:
    """The body, to be read once: a second reading, `request.read` included, finds nothing, and here that is an error.

    Raises ApiError when it takes longer than `BODY_TIMEOUT_S`, and 413 beyond `limits.MAX_REQUEST_BYTES`.
    """
    async with _in_time():
        if _is_told(request):
            return await _read(request, limits.MAX_REQUEST_BYTES)
        body = io.BytesIO()
        await _fill_whole(body, request, limits.MAX_REQUEST_BYTES)
        return body.getvalue()


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            yield
    except TimeoutError as error:
        telemetry.REQUESTS_TURNED_AWAY.labels("body late").inc()
        message = f"the body did not arrive within {BODY_TIMEOUT_S:g} s; nothing of this request is done"
        raise ApiError(408, "REQUEST_TIMEOUT", message) from error


def _is_told(request: web.Request) -> bool:
    """Whether its head says how long it will be."""
    return request.content_length is not None and "Content-Encoding" not in request.headers


async def _read(request: web.Request, most: int) -> bytes:
    # aiohttp's `read`, which does not ask how much will come, copies each piece twice. A body that states its length is
    # joined once, and one that arrives in one piece not even that: those of a batch are 100 kB, a thousand a second.
    size = request.content_length or 0
    if size > most:
        raise _too_large(most)
    piece = await request.content.readany()
    if len(piece) == size:
        return piece
    # Not a list of pieces: where each is a few bytes, it would take sixty times the body's memory.
    body = io.BytesIO()
    body.write(piece)
    await _fill(body, request, size)
    if body.tell() != size:
        raise RuntimeError(f"{body.tell()} of {size} bytes of a body were there to be read: it was read before")
    return body.getvalue()


async def _fill_whole(body: io.BytesIO, request: web.Request, most: int) -> None:
    if not await _fill(body, request, most):
        raise _too_large(most)


async def _fill(body: io.BytesIO, request: web.Request, most: int) -> bool:
    """Whether all of it is in there; it stops where that is more than `most` bytes."""
    while body.tell() <= most:
        piece = await request.content.readany()
        if not piece:
            return True
        body.write(piece)
    return False


def _too_large(most: int) -> ApiError:
    message = f"a body has at most {most} bytes, and nothing of this one is done: send it in several requests"
    return ApiError(413, "TOO_LARGE", message)
