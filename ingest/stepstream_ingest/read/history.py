"""Answers questions about metrics, each from one snapshot."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final
from uuid import UUID

from stepstream_ingest import telemetry
from stepstream_ingest.database import Database
from stepstream_ingest.errors import ApiError
from stepstream_ingest.read import view
from stepstream_ingest.read.asked import Wanted, Window
from stepstream_ingest.read.layers import Layer
from stepstream_ingest.read.reader import Metric, Reader
from stepstream_ingest.read.threads import aside
from stepstream_schema import buckets as summaries
from stepstream_schema import points as ordered
from stepstream_schema import sql
from stepstream_schema.buckets import Buckets
from stepstream_schema.points import Points

__all__ = ["MAX_ANSWER_POINTS", "History", "Wanted", "Window"]

SNAPSHOT_S: Final = 600.0
"""A snapshot that is held longer keeps deleted frames from being reclaimed; whoever reads so slowly asks in parts."""
MAX_ANSWER_POINTS: Final = 2_000_000
"""Points of one answer that is not streamed: 48 MB as columns."""
MAX_ANSWER_BUCKETS: Final = 500_000
"""Of all series of one answer together: 68 MB as columns."""


class History:
    """What the store knows of metrics: everything that is acknowledged. Raises DatabaseAway, and ApiError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("read")

    async def unknown_runs(self, run_ids: Iterable[UUID]) -> set[UUID]:
        """Those of the runs that do not exist."""
        wanted = set(run_ids)
        rows = await self._database.fetch(self._sql["known_runs"], list(wanted))
        return wanted - {row["run_id"] for row in rows}

    async def series(self, run_id: UUID) -> Sequence[Any]:
        """The series of a run, each with its summary."""
        return await self._database.fetch(self._sql["series"], run_id)

    async def points(self, wanted: Wanted, window: Window) -> Points:
        """Every point of a metric, in canonical order. Raises ApiError 413 for too many."""
        points, whole = await self.part(wanted, window, 0, MAX_ANSWER_POINTS)
        if not whole:
            message = (
                f"{wanted.key!r} has more than {MAX_ANSWER_POINTS} points there: ask for fewer steps "
                "(start_step, end_step), for buckets=1000, or for an Arrow stream"
            )
            raise ApiError(413, "TOO_LARGE", message)
        return points

    async def part(self, wanted: Wanted, window: Window, skip: int, most: int) -> tuple[Points, bool]:
        """Points after the first `skip`, in canonical order: more than `most`, or all; and whether it is all."""
        parts: list[Points] = []
        passed = count = 0
        async with aclosing(self.stream(wanted, window)) as stream:
            async for points in stream:
                parts.append(points.take(slice(max(0, skip - passed), None)))
                passed, count = passed + len(points), count + len(parts[-1])
                if count > most:
                    return await aside(ordered.joined, parts), False
        return await aside(ordered.joined, parts), True

    async def stream(self, wanted: Wanted, window: Window) -> AsyncGenerator[Points]:
        """Every point of a metric, in pieces, in canonical order."""
        async with self._snapshot() as reader:
            (metric,) = await reader.metrics([wanted], window)
            async with aclosing(reader.points(metric, window)) as pieces:
                async for points in pieces:
                    yield points

    async def buckets(
        self, wanted: Sequence[Wanted], window: Window, buckets: int, *, by_rank: bool = False
    ) -> tuple[view.Axis, list[tuple[Wanted, Buckets]]]:
        """Each metric in at most so many buckets, all on one axis; `by_rank` gives each rank a line of its own.

        Raises ApiError 400 for more buckets than an answer may hold; of very many ranks each has fewer.
        """
        if len(wanted) * buckets > MAX_ANSWER_BUCKETS:
            message = (
                f"{len(wanted)} series in {buckets} buckets each are more than {MAX_ANSWER_BUCKETS} buckets: "
                f"ask for {max(1, MAX_ANSWER_BUCKETS // len(wanted))} each, or for fewer series at a time"
            )
            raise ApiError(400, "INVALID_PARAMETER_VALUE", message)
        async with self._snapshot() as reader:
            metrics = await reader.metrics(wanted, window)
            if by_rank:
                metrics = [own for metric in metrics for own in _ranks_apart(metric)]
                buckets = max(1, min(buckets, MAX_ANSWER_BUCKETS // max(1, len(metrics))))
            axis = await aside(_axis, metrics, window, buckets)
            if axis is None:
                return view.Axis(0, 0, buckets), [(metric.wanted, summaries.NONE) for metric in metrics]
            return axis, [(metric.wanted, await reader.buckets(metric, window, axis)) for metric in metrics]

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Reader]:
        limit = asyncio.timeout(SNAPSHOT_S)
        try:
            async with (
                limit,
                self._database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield Reader(connection, self._sql)
        except TimeoutError:
            if not limit.expired():
                raise
            message = f"that takes longer than {SNAPSHOT_S:g} s: ask for fewer steps, for fewer series, or for buckets"
            raise ApiError(413, "TOO_LARGE", message) from None
        finally:
            if limit.expired():
                telemetry.REQUESTS_TURNED_AWAY.labels("snapshot old").inc()


def _ranks_apart(metric: Metric) -> list[Metric]:
    ranks: dict[int, list[Layer]] = {}
    for layer in metric.layers:
        ranks.setdefault(layer.rank, []).append(layer)
    one = metric.wanted
    return [
        Metric(Wanted(run_id=one.run_id, key=one.key, rank=rank, attempt=one.attempt), layers)
        for rank, layers in ranks.items()
    ]


def _axis(metrics: Sequence[Metric], window: Window, buckets: int) -> view.Axis | None:
    """The steps that the answer spans: those asked for, or all there are; None when nothing is there."""
    firsts, lasts = [], []
    for metric in metrics:
        for layer in metric.layers:
            firsts += [chunk.first_step for chunk in layer.chunks[:1]]
            lasts += [chunk.last_step for chunk in layer.chunks]
            if len(layer.loose):
                firsts.append(int(layer.loose.steps[0]))
                lasts.append(int(layer.loose.steps[-1]))
    if not firsts:
        return None
    first = min(firsts) if window.start is None else max(window.start, min(firsts))
    last = max(lasts) if window.end is None else min(window.end, max(lasts))
    return view.Axis(first, max(first, last), buckets)
