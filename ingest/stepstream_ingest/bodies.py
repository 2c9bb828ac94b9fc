"""Bodies of requests, read whole."""

import io

from aiohttp import web

from stepstream_schema import limits


async def whole(request: web.Request) -> bytes:
    """The body, to be read once: a second reading, `request.read` included, finds nothing, and here that is an error.

    Raises HTTPRequestEntityTooLarge beyond the application's `client_max_size`, which is `limits.MAX_REQUEST_BYTES`.

    aiohttp's `read`, which does not ask how much will come, copies each piece twice. A body that states its length is
    joined once, and one that arrives in one piece not even that: those of a batch are 100 kB, a thousand a second.
    """
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
