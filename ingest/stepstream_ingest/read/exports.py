"""Exports, which hold a snapshot for as long as their readers take: how many at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from stepstream_ingest import telemetry
from stepstream_ingest.errors import ApiError

TURN_WAIT_S: Final = 20.0
"""An export whose reader is not slow takes less."""
RETRY_S: Final = 10


class Exports:
    """Law: at any time no more than `most` are within `turn`."""

    def __init__(self, most: int) -> None:
        self._turns = asyncio.Semaphore(most)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn, and have it. Raises ApiError 429 where it does not come soon."""
        try:
            async with asyncio.timeout(TURN_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            telemetry.REQUESTS_TURNED_AWAY.labels("exports full").inc()
            message = (
                "other exports are being read, and each keeps a snapshot: try again, or ask for fewer steps "
                "(start_step, end_step), for buckets or for points, which wait for nobody"
            )
            raise ApiError(429, "QUEUE_FULL", message, RETRY_S) from None
        try:
            yield
        finally:
            self._turns.release()
