"""Points that come by requests and carry no number: this worker frames them itself, as a writer of its own.

They wait for group commits, as everybody's frames do. A request that is repeated stores its points again; of points
that are equal, readers and compaction keep one.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from stepstream_ingest import telemetry
from stepstream_ingest.admission import Admission
from stepstream_ingest.errors import ApiError, RunClosed
from stepstream_ingest.write.candidate import Candidate, accepted
from stepstream_ingest.write.queue import CommitQueue
from stepstream_schema import frame as wire
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Metrics

POINT_BYTES: Final = 64
"""What one point counts for in the queue's bound."""
RETRY_S: Final = 1


class Served:
    """Law: `log` returns after the commit that holds the points. Raises RunClosed, ApiError 429, DatabaseAway."""

    def __init__(
        self, *, appends: CommitQueue, commits: CommitQueue, admission: Admission, delay_s: Callable[[], float | None]
    ) -> None:
        self._appends = appends
        self._commits = commits
        self._admission = admission
        self._delay_s = delay_s
        self._writer = _new_writer()
        self._numbers = itertools.count(1)

    async def log(self, run_id: UUID, record: Metrics) -> None:
        """Store points of a run."""
        delay, size = self._delay_s(), POINT_BYTES * record.points
        if delay is None or not self._admission.try_admit(size):
            telemetry.REQUESTS_TURNED_AWAY.labels("queue full").inc()
            raise ApiError(429, "REQUEST_LIMIT_EXCEEDED", "the server is behind; nothing of this is stored", RETRY_S)
        try:
            if delay:
                await asyncio.sleep(delay)
            await self._store(run_id, record)
        finally:
            self._admission.release(size)
        telemetry.POINTS.inc(record.points)

    async def _store(self, run_id: UUID, record: Metrics) -> None:
        try:
            await self._appends.submit([_candidate(run_id, self._writer, next(self._numbers), record)])
        except RunClosed:
            # This run, or one that was to be stored with it: the usual way tells them apart, and revives a run that was
            # given up. Its cursors want numbers without gaps, so that each time it is another writer.
            committed = await self._commits.submit([_candidate(run_id, _new_writer(), 1, record)])
            if committed.verdicts[0] == "closed":
                raise RunClosed(run_id.hex) from None


def _candidate(run_id: UUID, writer: int, seq: int, record: Metrics) -> Candidate:
    frame = wire.Frame(run_id=run_id.hex, writer=writer, seq=seq, rank=None, attempt=Attempt(), records=(record,))
    return accepted(frame, wire.encode(frame), time.time_ns() // 1000, needs_run=True)


def _new_writer() -> int:
    return limits.FIRST_SERVED_WRITER + int.from_bytes(os.urandom(4), "big")
