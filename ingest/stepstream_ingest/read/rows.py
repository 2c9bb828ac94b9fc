"""What rows of chunks and of frames hold. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np

from stepstream_ingest.read import view
from stepstream_ingest.read.asked import Wanted, Window
from stepstream_ingest.read.layers import Chunk, Layer
from stepstream_schema import buckets as summaries
from stepstream_schema import chunk as chunks
from stepstream_schema import frame as wire
from stepstream_schema import points as ordered
from stepstream_schema.buckets import Buckets
from stepstream_schema.points import Points
from stepstream_schema.records import Matrix, Ragged

LayerName: TypeAlias = tuple[int, int, bool]
"""Rank, attempt, and whether it came by MLflow's protocol."""


def described(rows: Sequence[Any]) -> list[Chunk]:
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


def opened(chunk: Chunk, row: Any) -> Points:
    """The points behind a row of `chunk_bodies`."""
    if row["body"] is not None:
        return chunks.decode(row["body"])
    return view.real_points(summaries.decode(row["buckets"]) if row["buckets"] else chunk.summary)


class Loose:
    """Collects the points that were asked for out of frames, which are not compacted yet."""

    def __init__(self, wanted: Sequence[Wanted], window: Window) -> None:
        self._wanted = wanted
        self._window = window
        self.by_run: dict[UUID, list[int]] = {}
        """The places in the question where each run is named."""
        for place, one in enumerate(wanted):
            self.by_run.setdefault(one.run_id, []).append(place)
        self._parts: dict[tuple[int, LayerName], list[Points]] = {}

    def add(self, rows: Sequence[Any]) -> None:
        """Take rows of `wanted_frames`."""
        for row in rows:
            rank, attempt = row["rank"], row["attempt"]
            asked = [
                place
                for place in self.by_run[row["run_id"]]
                if self._wanted[place].rank in (None, rank) and self._wanted[place].attempt in (None, attempt)
            ]
            frame = wire.decode(row["body"]) if asked else None
            for place in asked:
                assert frame is not None
                for points in _of_key(frame, self._wanted[place].key):
                    self._parts.setdefault((place, (rank, attempt, row["served"])), []).append(points)

    def put(self, found: Sequence[dict[LayerName, Layer]]) -> None:
        """Give each layer what is loose of it, in order."""
        for (place, name), pieces in self._parts.items():
            rank, attempt, served = name
            layer = found[place].setdefault(name, Layer(rank=rank, attempt=attempt, served=served))
            loose = ordered.canonical(ordered.joined(pieces))
            loose = ordered.distinct(loose) if served else loose
            layer.loose = ordered.in_steps(loose, self._window.start, self._window.end)


def own_buckets(rows: Sequence[Any]) -> Mapping[int, Buckets]:
    """The summaries in rows of `chunk_buckets`, by chunk."""
    return {row["chunk_id"]: summaries.decode(row["buckets"]) for row in rows if row["buckets"]}


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
