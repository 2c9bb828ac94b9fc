"""Bodies of requests, read whole: within a time, and within what all of them together may take."""

import asyncio
import io
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


async def whole(request: web.Request) -> bytes:
    """The body, to be read once, if there is room for it. Raises what `read` raises, and ApiError."""
    # One that does not say how long it is may be as long as any, and so may what is compressed.
    is_told = request.content_length is not None and "Content-Encoding" not in request.headers
    size = (request.content_length or 0) if is_told else limits.MAX_REQUEST_BYTES
    if size <= SMALL_BYTES:
        return await read(request)
    room = request.app[ROOM]
    if not room.try_admit(size):
        telemetry.REQUESTS_TURNED_AWAY.labels("bodies full").inc()
        raise ApiError(429, "QUEUE_FULL", "too many large requests are on their way; nothing of this is done", RETRY_S)
    try:
        return await read(request)
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

    Raises ApiError when it takes longer than `BODY_TIMEOUT_S`, and HTTPRequestEntityTooLarge beyond the application's
    `client_max_size`, which is `limits.MAX_REQUEST_BYTES`.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(request)
    except TimeoutError as error:
        telemetry.REQUESTS_TURNED_AWAY.labels("body late").inc()
        message = f"the body did not arrive within {BODY_TIMEOUT_S:g} s; nothing of this request is done"
        raise ApiError(408, "REQUEST_TIMEOUT", message) from error


async def _read(request: web.Request) -> bytes:
    # aiohttp's `read`, which does not ask how much will come, copies each piece twice. A body that states its length is
    # joined once, and one that arrives in one piece not even that: those of a batch are 100 kB, a thousand a second.
    size = request.content_length
    if size is None or size > limits.MAX_REQUEST_BYTES or "Content-Encoding" in request.headers:
        return await request.read()
    piece = await request.content.readany()
    if len(piece) == size:
        return piece
    # Not a list of pieces: where each is a few bytes, it would take sixty times the body's memory.
    body = io.BytesIO()
    while piece:
        body.write(piece)
        piece = await request.content.readany()
    if body.tell() != size:
        raise RuntimeError(f"{body.tell()} of {size} bytes of a body were there to be read: it was read before")
    return body.getvalue()
