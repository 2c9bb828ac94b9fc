"""Points that come by requests and carry no number: this worker frames them itself, as a writer of its own.

They wait for group commits, as everybody's frames do. A request that is repeated stores its points again; of points
that are equal, readers and compaction keep one.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np

from stepstream_ingest import telemetry
from stepstream_ingest.errors import ApiError, RunClosed
from stepstream_ingest.write.admission import Admission
from stepstream_ingest.write.candidate import Candidate, accepted
from stepstream_ingest.write.queue import CommitQueue
from stepstream_schema import frame as wire
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt
from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.records import Matrix, Metrics, Ragged

POINT_BYTES: Final = 64
"""What one point counts for in the queue's bound."""
RETRY_S: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """Points as a request says them: four columns of one length, in any order."""

    keys: list[str]
    steps: Int64s
    times_ms: Int64s
    """ms since the epoch, UTC."""
    values: Float64s
    row: tuple[str, ...] | None = None
    """`row_of` the keys, of who has asked that before."""

    def __len__(self) -> int:
        return len(self.keys)


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

    async def log(self, run_id: UUID, points: Said) -> None:
        """Store points of a run."""
        if not len(points):
            return
        delay, size = self._delay_s(), POINT_BYTES * len(points)
        if delay is None or not self._admission.try_admit(size):
            telemetry.REQUESTS_TURNED_AWAY.labels("queue full").inc()
            raise ApiError(429, "REQUEST_LIMIT_EXCEEDED", "the server is behind; nothing of this is stored", RETRY_S)
        try:
            if delay:
                await asyncio.sleep(delay)
            await self._store(run_id, record_of(points))
        finally:
            self._admission.release(size)
        telemetry.POINTS.inc(len(points))

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


def record_of(points: Said) -> Metrics:
    """The points as columns, each key's in the order they came."""
    return _in_rows(points) or _by_key(points)


def row_of(keys: list[str]) -> tuple[str, ...] | None:
    """The keys of one row, where all come row by row, each with the same ones: so does whoever logs them by step.

    None otherwise. Looks at the keys of one row, and compares the rest: a set of all would take longer.
    """
    try:
        width = keys.index(keys[0], 1)
    except ValueError:
        width = len(keys)
    row = keys[:width]
    if len(set(row)) < width or keys != row * (len(keys) // width):
        return None
    return tuple(row)


def _in_rows(points: Said) -> Metrics | None:
    row = points.row or row_of(points.keys)
    if row is None:
        return None
    width, count = len(row), len(points) // len(row)
    shape = count, width
    steps, times, values = points.steps.reshape(shape), points.times_ms.reshape(shape), points.values.reshape(shape)
    if (steps == steps[:, :1]).all() and (times == times[:, :1]).all():
        return Matrix(
            keys=row,
            steps=steps[:, 0].copy(),
            times_ms=times[:, 0].copy(),
            values=np.ascontiguousarray(values.T),
        )
    return Ragged(
        keys=row,
        counts=np.full(width, count, np.int64),
        steps=steps.T.ravel(),
        times_ms=times.T.ravel(),
        values=values.T.ravel(),
    )


def _by_key(points: Said) -> Ragged:
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
