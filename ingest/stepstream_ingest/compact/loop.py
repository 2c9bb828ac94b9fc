"""When a server process compacts, and how it holds writers back when it cannot keep up."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeAlias
from uuid import UUID

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
ASIDE_S: Final = 5.0
"""A group whose pass has failed lets the others go first for so long."""
VACUUM_BYTES: Final = 32 * 2**20
"""Deleted frames are reclaimed after this much: their space is used again before the table grows far."""
VACUUM_S: Final = 60.0
VACUUM_TIMEOUT_S: Final = 3600.0
"""While an old snapshot is open nothing can be reclaimed, and ever more is read."""
TRUNCATE_BYTES: Final = 512 * 2**20
"""A table that has grown so far is cut where its end is empty: each look at what waits reads it whole."""

Name: TypeAlias = tuple[UUID, int | None, int, bool]
"""Run, rank, attempt, and whether it came by requests."""


class Compaction:
    """One process's share of the work; any number of them need no coordinator."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compactor = Compactor(database)
        self._tidier = Tidier(database)
        self._waiting_bytes = 0
        self._deleted_bytes = 0
        self._vacuumed_at = time.monotonic()
        self._vacuuming: asyncio.Task[None] | None = None
        self._aside: dict[Name, float] = {}
        """Groups that are let alone, and until when."""
        self._last: set[Name] = set()
        """Groups in whose pass the database went away: it may be theirs that takes too long."""

    def delay_s(self) -> float | None:
        """How long a writer is held back now; None to turn it away."""
        return None if self._waiting_bytes >= backlog.HARD_BYTES else backlog.delay_s(self._waiting_bytes)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                await self._go_on()
        finally:
            if self._vacuuming is not None:
                self._vacuuming.cancel()

    async def _go_on(self) -> None:
        try:
            worked = await self.round()
        except DatabaseAway as error:
            LOGGER.warning("compaction waits: %s", error)
            await asyncio.sleep(AWAY_PAUSE_S)
        except Exception:
            # A defect must not stop it for good, nor fill the log: the frames are safe where they are.
            LOGGER.exception("a pass of compaction failed")
            telemetry.COMPACTION_FAILURES.inc()
            await asyncio.sleep(AWAY_PAUSE_S)
        else:
            if not worked:
                await asyncio.sleep(POLL_S)

    async def round(self) -> bool:
        """Look, compact what is due, tidy when nothing is; whether anything was done. Raises DatabaseAway.

        A group that fails by a defect keeps nobody from the others.
        """
        waiting = await self._look()
        seen_at = time.monotonic()
        worked = False
        for group in sorted(waiting.due(), key=lambda group: _name(group) in self._last):
            worked = await self._tried(_name(group), self._compact(group)) or worked
            if time.monotonic() - seen_at > STALE_S:
                break
        self._vacuum_if_worth()
        return worked or await self._tidy()

    async def _compact(self, group: backlog.Group) -> bool:
        began = time.perf_counter()
        done = await self._compactor.compact(group)
        if done is None or not done.frames:
            return False
        self._deleted_bytes += done.bytes
        telemetry.COMPACTED_POINTS.inc(done.points)
        telemetry.COMPACTED_FRAMES.inc(done.frames)
        telemetry.COMPACTION_SECONDS.observe(time.perf_counter() - began)
        return True

    async def _tried(self, name: Name, work: Coroutine[Any, Any, bool]) -> bool:
        """Whether anything was done. Raises DatabaseAway."""
        now = time.monotonic()
        self._aside = {one: until for one, until in self._aside.items() if until > now}
        if name in self._aside:
            work.close()
            return False
        try:
            worked = await work
            self._last.discard(name)
            return worked
        except DatabaseAway:
            self._last.add(name)
            raise
        except Exception:
            self._aside[name] = time.monotonic() + ASIDE_S
            LOGGER.exception("a pass over run %s, rank %s failed", name[0].hex, name[1])
            telemetry.COMPACTION_FAILURES.inc()
            return False

    async def _look(self) -> backlog.Backlog:
        waiting = await self._compactor.backlog()
        self._waiting_bytes = waiting.bytes
        self._last &= {_name(group) for group in waiting.groups}
        telemetry.BACKLOG_FRAMES.set(waiting.frames)
        telemetry.BACKLOG_POINTS.set(waiting.points)
        telemetry.BACKLOG_BYTES.set(waiting.bytes)
        return waiting

    async def _tidy(self) -> bool:
        worked = False
        for run_id, rank, attempt in await self._tidier.groups():
            name = (run_id, None if rank == -1 else rank, attempt, False)
            worked = await self._tried(name, self._tidy_group(run_id, rank, attempt)) or worked
        return worked

    async def _tidy_group(self, run_id: UUID, rank: int, attempt: int) -> bool:
        chunks = await self._tidier.tidy(run_id, rank, attempt)
        telemetry.TIDIED_CHUNKS.inc(chunks)
        return chunks > 0

    def _vacuum_if_worth(self) -> None:
        """Give the space of deleted frames back to the table: at their rate the system's own would come late."""
        late = self._deleted_bytes and time.monotonic() - self._vacuumed_at > VACUUM_S
        if (self._deleted_bytes >= VACUUM_BYTES or late) and (self._vacuuming is None or self._vacuuming.done()):
            self._deleted_bytes = 0
            self._vacuumed_at = time.monotonic()
            # Beside the passes, which need not wait for it.
            self._vacuuming = asyncio.create_task(self._vacuum())

    async def _vacuum(self) -> None:
        try:
            async with self._database.connection() as connection:
                size = await connection.fetchval("SELECT pg_relation_size('frames')")
                # One at a time is enough: who finds the table being vacuumed goes on. The lock that cutting needs is
                # given up where somebody waits for it.
                how = f"TRUNCATE {size >= TRUNCATE_BYTES}, SKIP_LOCKED"
                await connection.execute(f"VACUUM ({how}) frames", timeout=VACUUM_TIMEOUT_S)
        except DatabaseAway as error:
            LOGGER.warning("the table of frames was not vacuumed: %s", error)
        except Exception:
            LOGGER.exception("the table of frames was not vacuumed")
            telemetry.COMPACTION_FAILURES.inc()


def _name(group: backlog.Group) -> Name:
    return group.run_id, group.rank, group.attempt, group.served
