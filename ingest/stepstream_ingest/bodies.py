"""Bodies of requests, read whole."""

from aiohttp import web

from stepstream_schema import limits


async def whole(request: web.Request) -> bytes:
    """The body. Raises HTTPRequestEntityTooLarge beyond `limits.MAX_REQUEST_BYTES`.

    aiohttp's `read`, which does not ask how much will come, copies each piece twice. A body that states its length is
    joined once, and one that arrives in one piece not even that: those of a batch are 100 kB, a thousand a second.
    """
    size = request.content_length
    if size is None or size > limits.MAX_REQUEST_BYTES or "Content-Encoding" in request.headers:
        return await request.read()
    return await request.content.read()
