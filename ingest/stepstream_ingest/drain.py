"""The first stage of stopping: what has begun is answered, what is new is sent elsewhere."""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stepstream_ingest.errors import ApiError
from stepstream_schema import paths

RETRY_DRAINING_S = 1


class Drain:
    """Law: a request that was being handled when the drain began is answered, however much of its body is on its way.

    aiohttp's own shutdown stops reading bodies first, so it comes second.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def begin(self, timeout_s: float) -> int:
        """Turn new frames away, wait for what is under way, and say how many requests are still not answered."""
        self.is_on = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return self._under_way
        return 0

    def middleware(self) -> Middleware:
        """Counts what is under way."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self.is_on and request.path == paths.FRAMES:
                message = "this server is stopping; nothing of this request is stored"
                raise ApiError(503, "DRAINING", message, RETRY_DRAINING_S)
            self._under_way += 1
            self._idle.clear()
            try:
                return await handler(request)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

        return count
