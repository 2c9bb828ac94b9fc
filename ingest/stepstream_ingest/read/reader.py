"""Reads within one snapshot, and no more at a time than is needed next."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from stepstream_ingest.database import Connection
from stepstream_ingest.errors import ApiError
from stepstream_ingest.read import layers as sight
from stepstream_ingest.read import rows as stored
from stepstream_ingest.read import sweep, view
from stepstream_ingest.read.asked import Wanted, Window
from stepstream_ingest.read.layers import Chunk, Cluster, Layer
from stepstream_ingest.read.rows import LayerName
from stepstream_ingest.read.sweep import Share, Sweep
from stepstream_ingest.read.threads import aside
from stepstream_schema import chunk as chunks
from stepstream_schema import points as ordered
from stepstream_schema.buckets import Buckets
from stepstream_schema.points import Points

FRAMES_PER_FETCH: Final = 200
"""Bodies held at a time while frames are read: some 70 MB of the largest ordinary ones."""
CHUNKS_PER_FETCH: Final = 32
"""Bodies opened at a time: some 1 MB, and 6 MB of points."""
MAX_CHUNKS: Final = 200_000
"""Whose descriptions one question may need, of all its series together: 1,600 million points, and some 100 MB."""
ROWS_PER_FETCH: Final = 5_000
"""Descriptions of chunks at a time: as rows they take three times as much."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Metric:
    """What the store has of one metric in a window."""

    wanted: Wanted
    layers: list[Layer]
    """In order of sight."""


class Reader:
    """One snapshot. Raises ApiError for what is more than one question may read."""

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
            for row, chunk in zip(rows, await aside(stored.described, rows), strict=True):
                for layer in owners[row["run_id"], row["series_id"]]:
                    layer.chunks.append(chunk)

    async def _frames(self, wanted: Sequence[Wanted], window: Window, found: list[dict[LayerName, Layer]]) -> None:
        loose = stored.Loose(wanted, window)
        cursor = await self._connection.cursor(
            self._sql["wanted_frames"], list(loose.by_run), list({one.key for one in wanted})
        )
        while rows := await cursor.fetch(FRAMES_PER_FETCH):
            await aside(loose.add, rows)
        await aside(loose.put, found)

    async def points(self, metric: Metric, window: Window) -> AsyncGenerator[Points]:
        """What is seen of a metric, in pieces, in order."""
        clusters = await aside(sight.clusters, metric.layers)
        inside = partial(ordered.in_steps, start=window.start, end=window.end)
        async with aclosing(self._opened(metric.wanted.run_id, clusters, inside)) as opened:
            async for _, points in opened:
                yield points

    async def buckets(self, metric: Metric, window: Window, axis: view.Axis) -> Buckets:
        """A metric on the axis."""
        run_id = metric.wanted.run_id
        clusters = await aside(sight.clusters, metric.layers)
        detail = view.detail_for(clusters, axis.buckets)
        own = await self._own_buckets(run_id, view.fine(clusters, detail))
        parts: list[list[Buckets]] = []
        closed: list[int] = []
        for place, cluster in enumerate(clusters):
            chunk = cluster.lone_chunk
            if (
                chunk is None
                or view.is_cut(chunk, window.start, window.end)
                or (detail == "points" and not chunk.summary_only)
            ):
                closed.append(place)
                parts.append([])
            else:
                parts.append([own.get(chunk.chunk_id, chunk.summary)])
        seen = partial(_summarised, window=window, axis=axis)
        async with aclosing(self._opened(run_id, [clusters[place] for place in closed], seen)) as opened:
            async for place, buckets in opened:
                parts[closed[place]].append(buckets)
        return await aside(view.on_axis, [part for several in parts for part in several], axis)

    async def _opened(
        self, run_id: UUID, clusters: Sequence[Cluster], make: Callable[[Points], Made]
    ) -> AsyncGenerator[tuple[int, Made]]:
        """What is made of what is seen of each cluster, in one part or several, and which cluster it is of."""
        begun = Sweep()
        for batch in sweep.batches(clusters, CHUNKS_PER_FETCH):
            wanted = [piece.chunk for share in batch for piece in share.pieces if piece.chunk is not None]
            rows = await self._connection.fetch(self._sql["chunk_bodies"], *_names(run_id, wanted)) if wanted else []
            for one in await aside(_made, begun, batch, rows, make):
                yield one

    async def _own_buckets(self, run_id: UUID, wanted: Sequence[Chunk]) -> Mapping[int, Buckets]:
        if not wanted:
            return {}
        rows = await self._connection.fetch(self._sql["chunk_buckets"], *_names(run_id, wanted))
        return await aside(stored.own_buckets, rows)


def _names(run_id: UUID, wanted: Sequence[Chunk]) -> list[list[Any]]:
    return [
        [run_id] * len(wanted),
        [chunk.series_id for chunk in wanted],
        [chunk.first_step for chunk in wanted],
        [chunk.chunk_id for chunk in wanted],
    ]


def _made(
    begun: Sweep, batch: Sequence[Share], rows: Sequence[Any], make: Callable[[Points], Made]
) -> list[tuple[int, Made]]:
    bodies = {row["chunk_id"]: row for row in rows}
    made = []
    for share in batch:
        points = []
        for piece in share.pieces:
            if piece.chunk is not None:
                points.append(stored.opened(piece.chunk, bodies[piece.chunk.chunk_id]))
            else:
                assert piece.loose is not None
                points.append(piece.loose)
        made.append((share.place, make(begun.decided(share, points))))
    return made


def _summarised(points: Points, window: Window, axis: view.Axis) -> Buckets:
    return view.of_points(ordered.in_steps(points, window.start, window.end), axis)
