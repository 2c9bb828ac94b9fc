"""Whether a server should be sent requests now."""

import asyncio
import time
from typing import Final, NamedTuple

from stepstream_ingest import database
from stepstream_ingest.drain import Drain
from stepstream_ingest.errors import DatabaseAway

PROBE_S: Final = 2.0
"""A probe has a limit of its own, mostly of a few seconds: longer than this is no answer."""
KEPT_S: Final = 1.0
"""However often it is asked, and by whom: it is asked without a token."""


class Problem(NamedTuple):
    """Why it should not."""

    status: str
    message: str


class Readiness:
    """Law: PostgreSQL is asked at most once in `KEPT_S`, by a connection of its own: a busy pool is no outage."""

    def __init__(self, dsn: str, drain: Drain) -> None:
        self._dsn, self._drain = dsn, drain
        self._asking = asyncio.Lock()
        self._asked_at = -KEPT_S
        self._problem: Problem | None = None

    async def problem(self) -> Problem | None:
        """None when it is ready."""
        if self._drain.is_on:
            return Problem("draining", "this server is stopping")
        async with self._asking:
            if time.monotonic() - self._asked_at >= KEPT_S:
                self._problem = await self._ask()
                self._asked_at = time.monotonic()
        return self._problem

    async def _ask(self) -> Problem | None:
        try:
            if await database.is_writable(self._dsn, PROBE_S):
                return None
        except DatabaseAway as error:
            return Problem("database away", str(error))
        return Problem("database read-only", "PostgreSQL is a standby, or takes no changes by default")
