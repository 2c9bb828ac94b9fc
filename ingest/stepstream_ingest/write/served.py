"""Points that come by requests and carry no number: this worker frames them itself, as a writer of its own.

They wait for the same group commits as everybody's frames. A request that is repeated stores its points again; of
points that are equal, readers and compaction keep one.
"""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np

from stepstream_ingest import telemetry
from stepstream_ingest.errors import ApiError
from stepstream_ingest.write.admission import Admission
from stepstream_ingest.write.candidate import accepted
from stepstream_ingest.write.queue import CommitQueue
from stepstream_schema import frame as wire
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt
from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.records import Ragged

MAX_RUNS: Final = 4096
"""Runs whose next number is remembered; one that is forgotten goes on under another writer."""
POINT_BYTES: Final = 64
"""What one point counts for in the queue's bound."""
RETRY_S: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """Points as a request says them: four columns of one length, in any order."""

    keys: Sequence[str]
    steps: Int64s
    times_ms: Int64s
    """ms since the epoch, UTC."""
    values: Float64s

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True)
class _Writer:
    writer: int
    next_seq: int = 1


class RunClosed(Exception):
    """The run is not there, or deleted: nothing was stored."""


class Served:
    """Law: `log` returns after the commit that holds the points. Raises RunClosed, ApiError 429, DatabaseAway."""

    def __init__(self, queue: CommitQueue, admission: Admission, delay_s: Callable[[], float | None]) -> None:
        self._queue = queue
        self._admission = admission
        self._delay_s = delay_s
        self._writers: OrderedDict[UUID, _Writer] = OrderedDict()

    async def log(self, run_id: UUID, points: Said) -> None:
        """Store points of a run."""
        if not len(points):
            return
        delay, size = self._delay_s(), POINT_BYTES * len(points)
        if delay is None or not self._admission.try_admit(size):
            telemetry.REQUESTS_TURNED_AWAY.labels("queue full").inc()
            raise ApiError(429, "REQUEST_LIMIT_EXCEEDED", "the server is behind; nothing of this is stored", RETRY_S)
        try:
            await asyncio.sleep(delay)
            await self._commit(run_id, points)
        finally:
            self._admission.release(size)

    async def _commit(self, run_id: UUID, points: Said) -> None:
        writer = self._writers.setdefault(run_id, _Writer(_new_writer()))
        self._writers.move_to_end(run_id)
        while len(self._writers) > MAX_RUNS:
            self._writers.popitem(last=False)
        seq, writer.next_seq = writer.next_seq, writer.next_seq + 1
        frame = wire.Frame(
            run_id=run_id.hex, writer=writer.writer, seq=seq, rank=None, attempt=Attempt(), records=(_record(points),)
        )
        candidate = accepted(frame, wire.encode(frame), time.time_ns() // 1000, needs_run=True)
        try:
            committed = await self._queue.submit([candidate])
            if committed.verdicts[0] == "closed":
                raise RunClosed(run_id.hex)
        except BaseException:
            # Its number may never be stored: nobody waits for it, if its writer writes no more.
            self._writers.pop(run_id, None)
            raise
        telemetry.POINTS.inc(len(points))


def _record(points: Said) -> Ragged:
    keys = sorted(set(points.keys))
    places = {key: place for place, key in enumerate(keys)}
    of_keys = np.fromiter(map(places.__getitem__, points.keys), np.int64, len(points))
    order = np.argsort(of_keys, kind="stable")
    return Ragged(
        keys=tuple(keys),
        counts=np.bincount(of_keys, minlength=len(keys)).astype(np.int64),
        steps=points.steps[order],
        times_ms=points.times_ms[order],
        values=points.values[order],
    )


def _new_writer() -> int:
    return limits.FIRST_SERVED_WRITER + int.from_bytes(os.urandom(4), "big")
