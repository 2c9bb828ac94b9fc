"""When a server process compacts, and how it holds writers back when it cannot keep up."""

import asyncio
import logging
import time
from typing import Final

from stepstream_ingest import telemetry
from stepstream_ingest.compact import backlog
from stepstream_ingest.compact.compactor import Compactor
from stepstream_ingest.compact.tidier import Tidier
from stepstream_ingest.database import Database
from stepstream_ingest.errors import DatabaseAway

LOGGER: Final = logging.getLogger(__name__)

POLL_S: Final = 1.0
AWAY_PAUSE_S: Final = 2.0
STALE_S: Final = 2.0
"""A backlog older than this is looked up again before the next pass: writers are slowed by what it says."""
VACUUM_BYTES: Final = 32 * 2**20
"""Deleted frames are reclaimed after this much: their space is used again before the table grows far."""
VACUUM_S: Final = 60.0


class Compaction:
    """One process's share of the work; any number of them need no coordinator."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compactor = Compactor(database)
        self._tidier = Tidier(database)
        self._waiting_bytes = 0
        self._deleted_bytes = 0
        self._vacuumed_at = time.monotonic()

    def delay_s(self) -> float | None:
        """How long a writer is held back now; None to turn it away."""
        return None if self._waiting_bytes >= backlog.HARD_BYTES else backlog.delay_s(self._waiting_bytes)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                worked = await self.round()
            except DatabaseAway as error:
                LOGGER.warning("compaction waits: %s", error)
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            except Exception:
                # A defect must not stop it for good, nor fill the log: the frames are safe where they are.
                LOGGER.exception("a pass of compaction failed")
                telemetry.COMPACTION_FAILURES.inc()
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            if not worked:
                await asyncio.sleep(POLL_S)

    async def round(self) -> bool:
        """Look, compact what is due, tidy when nothing is; whether anything was done. Raises DatabaseAway."""
        waiting = await self._look()
        seen_at = time.monotonic()
        worked = False
        for group in waiting.due():
            began = time.perf_counter()
            done = await self._compactor.compact(group)
            if done is not None and done.frames:
                worked = True
                self._deleted_bytes += done.bytes
                telemetry.COMPACTED_POINTS.inc(done.points)
                telemetry.COMPACTED_FRAMES.inc(done.frames)
                telemetry.COMPACTION_SECONDS.observe(time.perf_counter() - began)
            if time.monotonic() - seen_at > STALE_S:
                break
        await self._vacuum()
        return worked or await self._tidy()

    async def _look(self) -> backlog.Backlog:
        waiting = await self._compactor.backlog()
        self._waiting_bytes = waiting.bytes
        telemetry.BACKLOG_FRAMES.set(waiting.frames)
        telemetry.BACKLOG_POINTS.set(waiting.points)
        telemetry.BACKLOG_BYTES.set(waiting.bytes)
        return waiting

    async def _tidy(self) -> bool:
        worked = False
        for run_id, rank, attempt in await self._tidier.groups():
            chunks = await self._tidier.tidy(run_id, rank, attempt)
            telemetry.TIDIED_CHUNKS.inc(chunks)
            worked = worked or chunks > 0
        return worked

    async def _vacuum(self) -> None:
        """Give the space of deleted frames back to the table: at their rate the system's own would come late."""
        late = self._deleted_bytes and time.monotonic() - self._vacuumed_at > VACUUM_S
        if self._deleted_bytes < VACUUM_BYTES and not late:
            return
        async with self._database.connection() as connection:
            # One at a time is enough: who finds the table being vacuumed goes on.
            await connection.execute("VACUUM (TRUNCATE false, SKIP_LOCKED) frames")
        self._deleted_bytes = 0
        self._vacuumed_at = time.monotonic()
