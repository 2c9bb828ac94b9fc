"""Reads series from the database: one snapshot for each question, and no more opened than it needs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np

from stepstream_ingest import telemetry
from stepstream_ingest.database import Connection, Database
from stepstream_ingest.errors import ApiError
from stepstream_ingest.read import layers as sight
from stepstream_ingest.read import view
from stepstream_ingest.read.layers import Chunk, Cluster, Layer
from stepstream_schema import buckets as summaries
from stepstream_schema import chunk as chunks
from stepstream_schema import frame as wire
from stepstream_schema import points as ordered
from stepstream_schema import sql
from stepstream_schema.buckets import Buckets
from stepstream_schema.points import Points
from stepstream_schema.records import Matrix, Ragged

FRAMES_PER_FETCH: Final = 200
"""Bodies held at a time while frames are read: some 70 MB of the largest ordinary ones."""
CHUNKS_PER_FETCH: Final = 32
"""Bodies opened at a time: some 1 MB, and 6 MB of points."""
SNAPSHOT_S: Final = 600.0
"""A snapshot that is held longer keeps deleted frames from being reclaimed; whoever reads so slowly asks in parts."""
MAX_ANSWER_POINTS: Final = 2_000_000
"""Points of one answer that is not streamed: 48 MB as columns."""
MAX_ANSWER_BUCKETS: Final = 500_000
"""Of all series of one answer together: 68 MB as columns."""
MAX_CHUNKS: Final = 200_000
"""Whose descriptions one question may need, of all its series together: 1,600 million points, and some 100 MB."""
ROWS_PER_FETCH: Final = 5_000
"""Descriptions of chunks at a time: as rows they take three times as much."""
LayerName: TypeAlias = tuple[int, int, bool]
"""Rank, attempt, and whether it came by MLflow's protocol."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One metric of one run."""

    run_id: UUID
    key: str
    rank: int | None = None
    """None is the lowest of each step; -1 those that have none."""
    attempt: int | None = None
    """Packed; None is the newest of each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Steps from `start` to `end`, both included; None is open."""

    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """What the store has of one metric in a window."""

    wanted: Wanted
    layers: list[Layer]
    """In order of sight."""


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
                    return ordered.joined(parts), False
        return ordered.joined(parts), True

    async def stream(self, wanted: Wanted, window: Window) -> AsyncGenerator[Points]:
        """Every point of a metric, in pieces, in canonical order."""
        async with self._snapshot() as reader:
            (metric,) = await reader.metrics([wanted], window)
            for batch in _batches(sight.clusters(metric.layers)):
                for piece in await reader.open(wanted.run_id, batch):
                    yield ordered.in_steps(piece, window.start, window.end)

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
            axis = _axis(metrics, window, buckets)
            if axis is None:
                return view.Axis(0, 0, buckets), [(metric.wanted, summaries.NONE) for metric in metrics]
            return axis, await reader.buckets(metrics, window, axis)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator["_Reader"]:
        limit = asyncio.timeout(SNAPSHOT_S)
        try:
            async with (
                limit,
                self._database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield _Reader(connection, self._sql)
        except TimeoutError:
            if not limit.expired():
                raise
            message = f"that takes longer than {SNAPSHOT_S:g} s: ask for fewer steps, for fewer series, or for buckets"
            raise ApiError(413, "TOO_LARGE", message) from None
        finally:
            if limit.expired():
                telemetry.REQUESTS_TURNED_AWAY.labels("snapshot old").inc()


class _Reader:
    """Reads within one snapshot."""

    def __init__(self, connection: Connection, queries: dict[str, str]) -> None:
        self._connection = connection
        self._sql = queries

    async def metrics(self, wanted: Sequence[Wanted], window: Window) -> list[Metric]:
        """The layers of each metric."""
        found: list[dict[LayerName, Layer]] = [{} for _ in wanted]
        await self._chunks(wanted, window, found)
        await self._frames(wanted, window, found)
        return [
            Metric(one, sight.in_order_of_sight(layers.values())) for one, layers in zip(wanted, found, strict=True)
        ]

    async def _chunks(self, wanted: Sequence[Wanted], window: Window, found: list[dict[LayerName, Layer]]) -> None:
        rows = await self._connection.fetch(
            self._sql["wanted_series"],
            [one.run_id for one in wanted],
            [one.key for one in wanted],
            [one.rank for one in wanted],
            [one.attempt for one in wanted],
        )
        owners: dict[tuple[UUID, int], list[Layer]] = {}
        for row in rows:
            layer = found[row["place"] - 1].setdefault(
                (row["rank"], row["attempt"], row["served"]),
                Layer(rank=row["rank"], attempt=row["attempt"], served=row["served"]),
            )
            owners.setdefault((row["run_id"], row["series_id"]), []).append(layer)
        cursor = await self._connection.cursor(
            self._sql["wanted_chunks"],
            [run for run, _ in owners],
            [series for _, series in owners],
            INT64_MIN if window.start is None else window.start,
            INT64_MAX if window.end is None else window.end,
        )
        count = 0
        while rows := await cursor.fetch(ROWS_PER_FETCH):
            count += len(rows)
            if count > MAX_CHUNKS:
                message = (
                    f"that is about series of more than {MAX_CHUNKS * chunks.MAX_POINTS} points together: ask for "
                    "fewer series at a time, or for fewer steps (start_step, end_step)"
                )
                raise ApiError(400, "INVALID_PARAMETER_VALUE", message)
            for row, chunk in zip(rows, _chunk_rows(rows), strict=True):
                for layer in owners[row["run_id"], row["series_id"]]:
                    layer.chunks.append(chunk)

    async def _frames(self, wanted: Sequence[Wanted], window: Window, found: list[dict[LayerName, Layer]]) -> None:
        by_run: dict[UUID, list[int]] = {}
        for place, one in enumerate(wanted):
            by_run.setdefault(one.run_id, []).append(place)
        parts: dict[tuple[int, int, int, bool], list[Points]] = {}
        cursor = self._connection.cursor(
            self._sql["wanted_frames"], list(by_run), list({one.key for one in wanted}), prefetch=FRAMES_PER_FETCH
        )
        async for row in cursor:
            rank, attempt = row["rank"], row["attempt"]
            asked = [
                place
                for place in by_run[row["run_id"]]
                if wanted[place].rank in (None, rank) and wanted[place].attempt in (None, attempt)
            ]
            if not asked:
                continue
            frame = wire.decode(row["body"])
            for place in asked:
                for points in _of_key(frame, wanted[place].key):
                    parts.setdefault((place, rank, attempt, row["served"]), []).append(points)
        for (place, rank, attempt, served), pieces in parts.items():
            new = Layer(rank=rank, attempt=attempt, served=served)
            layer = found[place].setdefault((rank, attempt, served), new)
            loose = ordered.canonical(ordered.joined(pieces))
            loose = ordered.distinct(loose) if served else loose
            layer.loose = ordered.in_steps(loose, window.start, window.end)

    async def buckets(self, metrics: Sequence[Metric], window: Window, axis: view.Axis) -> list[tuple[Wanted, Buckets]]:
        """Each metric on the axis."""
        plans = [(metric, sight.clusters(metric.layers)) for metric in metrics]
        details = [view.detail_for(clusters, axis.buckets) for _, clusters in plans]
        fine = [
            (metric.wanted.run_id, chunk)
            for (metric, clusters), detail in zip(plans, details, strict=True)
            for cluster in clusters
            if (chunk := cluster.lone_chunk)
            and chunk.points > chunks.BUCKET_POINTS
            and (detail == "buckets" or (detail == "points" and chunk.summary_only))
        ]
        own = await self._own_buckets(fine)
        answers = []
        for (metric, clusters), detail in zip(plans, details, strict=True):
            answers.append((metric.wanted, await self._on_axis(metric, clusters, detail, window, axis, own)))
        return answers

    async def _on_axis(
        self,
        metric: Metric,
        clusters: Sequence[Cluster],
        detail: view.Detail,
        window: Window,
        axis: view.Axis,
        own: dict[int, Buckets],
    ) -> Buckets:
        parts: list[Buckets | None] = [
            None
            if (chunk := cluster.lone_chunk) is None
            or view.is_cut(chunk, window.start, window.end)
            or (detail == "points" and not chunk.summary_only)
            else own.get(chunk.chunk_id, chunk.summary)
            for cluster in clusters
        ]
        closed = [place for place, part in enumerate(parts) if part is None]
        for batch in _batches([clusters[place] for place in closed]):
            for points in await self.open(metric.wanted.run_id, batch):
                inside = ordered.in_steps(points, window.start, window.end)
                parts[closed.pop(0)] = view.of_points(inside, axis)
        return view.on_axis([part for part in parts if part is not None], axis)

    async def open(self, run_id: UUID, clusters: Sequence[Cluster]) -> list[Points]:
        """What is seen of each cluster."""
        wanted = [chunk for cluster in clusters for chunk in cluster.chunks]
        rows = await self._connection.fetch(self._sql["chunk_bodies"], *_names([(run_id, chunk) for chunk in wanted]))
        stored = {row["chunk_id"]: row for row in rows}
        opened = []
        for cluster in clusters:
            parts = []
            for piece in cluster.pieces:
                if piece.chunk is None:
                    assert piece.loose is not None
                    parts.append((piece, piece.loose))
                else:
                    parts.append((piece, _opened(piece.chunk, stored[piece.chunk.chunk_id])))
            opened.append(parts[0][1] if len(parts) == 1 else sight.seen(parts))
        return opened

    async def _own_buckets(self, wanted: Sequence[tuple[UUID, Chunk]]) -> dict[int, Buckets]:
        rows = await self._connection.fetch(self._sql["chunk_buckets"], *_names(wanted)) if wanted else []
        return {row["chunk_id"]: summaries.decode(row["buckets"]) for row in rows if row["buckets"]}


def _names(wanted: Sequence[tuple[UUID, Chunk]]) -> list[list[Any]]:
    return [
        [run_id for run_id, _ in wanted],
        [chunk.series_id for _, chunk in wanted],
        [chunk.first_step for _, chunk in wanted],
        [chunk.chunk_id for _, chunk in wanted],
    ]


def _opened(chunk: Chunk, row: Any) -> Points:
    if row["body"] is not None:
        return chunks.decode(row["body"])
    return view.real_points(summaries.decode(row["buckets"]) if row["buckets"] else chunk.summary)


def _chunk_rows(rows: Sequence[Any]) -> list[Chunk]:
    """The chunks behind rows of `wanted_chunks`: columns are made at once, since there may be thousands of rows."""
    if not rows:
        return []
    columns = list(zip(*rows, strict=True))
    ints = np.array(columns[5:17], np.int64)
    floats = np.array(columns[17:22], np.float64)
    return [
        Chunk(
            series_id=columns[1][place],
            chunk_id=columns[2][place],
            stride=columns[3][place],
            summary_only=columns[4][place],
            summary=Buckets(ints[:, place : place + 1], floats[:, place : place + 1]),
        )
        for place in range(len(rows))
    ]


def _batches(clusters: Sequence[Cluster]) -> Iterable[list[Cluster]]:
    """As many clusters at a time as may be opened together."""
    batch: list[Cluster] = []
    size = 0
    for cluster in clusters:
        if batch and size + len(cluster.pieces) > CHUNKS_PER_FETCH:
            yield batch
            batch, size = [], 0
        batch.append(cluster)
        size += len(cluster.pieces)
    if batch:
        yield batch


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


def _of_key(frame: wire.Frame, key: str) -> list[Points]:
    """The points of `key` in one frame, a part for each record that holds it."""
    parts = []
    for record in frame.records:
        if isinstance(record, Matrix | Ragged) and key in record.keys:
            place = record.keys.index(key)
            if isinstance(record, Matrix):
                chosen: slice = slice(None)
                values = record.values[place]
            else:
                start = int(record.offsets[place])
                chosen = slice(start, start + int(record.counts[place]))
                values = record.values[chosen]
            # Copied, so that one key does not keep the columns of a whole frame alive.
            parts.append(Points(steps=record.steps[chosen], times_ms=record.times_ms[chosen], values=values.copy()))
    return parts
