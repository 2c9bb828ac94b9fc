"""How finely a question is answered, and the answer put together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from stepstream_ingest.read.layers import Chunk, Cluster
from stepstream_schema import buckets as summaries
from stepstream_schema.buckets import Buckets
from stepstream_schema.chunk import BUCKET_POINTS
from stepstream_schema.columns import Int64s
from stepstream_schema.points import Points

Detail: TypeAlias = Literal["chunks", "buckets", "points"]
"""What lone chunks are taken as: one bucket each, their own buckets, or their points."""

ENOUGH: Final = 2
"""Summaries are used when they are at least 1/2 as many as the buckets that were asked for."""
SLICE: Final = 2**16
"""Points summarised at once: each takes 140 bytes meanwhile."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Equal shares of the steps from `first` to `last`, both included."""

    first: int
    last: int
    buckets: int

    def places(self, steps: Int64s) -> npt.NDArray[np.int64]:
        """The share that each step falls into."""
        # The distance of two int64 needs 64 bits without a sign.
        offsets = steps.view(np.uint64) - np.uint64(self.first % 2**64)
        share = offsets.astype(np.float64) / (self.last - self.first + 1) * self.buckets
        return np.clip(share.astype(np.int64), 0, self.buckets - 1)


def detail_for(clusters: Sequence[Cluster], buckets: int) -> Detail:
    """The coarsest that still gives enough buckets."""
    lone = [chunk for cluster in clusters if (chunk := cluster.lone_chunk) is not None]
    if len(lone) * ENOUGH >= buckets:
        return "chunks"
    if sum(-(-chunk.points // BUCKET_POINTS) for chunk in lone) * ENOUGH >= buckets:
        return "buckets"
    return "points"


def fine(clusters: Sequence[Cluster], detail: Detail) -> list[Chunk]:
    """The lone chunks of which their own buckets are wanted."""
    lone = [chunk for cluster in clusters if (chunk := cluster.lone_chunk) and chunk.points > BUCKET_POINTS]
    return [chunk for chunk in lone if detail == "buckets" or (detail == "points" and chunk.summary_only)]


def is_cut(chunk: Chunk, start: int | None, end: int | None) -> bool:
    """Whether a window of steps goes through the chunk, which then is opened."""
    return (start is not None and chunk.first_step < start) or (end is not None and chunk.last_step > end)


def of_points(points: Points, axis: Axis) -> Buckets:
    """Points in order, as buckets of the axis' shares."""
    parts = [_of_points(points.take(slice(start, start + SLICE)), axis) for start in range(0, len(points), SLICE)]
    return parts[0] if len(parts) == 1 else on_axis(parts, axis)


def _of_points(points: Points, axis: Axis) -> Buckets:
    return summaries.of_points(points.steps, points.times_ms, points.values, _starts(axis.places(points.steps)))


def on_axis(parts: Sequence[Buckets], axis: Axis) -> Buckets:
    """Buckets in order, merged into the shares in which each begins."""
    whole = summaries.joined(parts)
    return summaries.merge(whole, _starts(axis.places(whole.ints[0]))) if len(whole) else whole


def _starts(places: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.r_[True, places[1:] != places[:-1]])


def real_points(buckets: Buckets) -> Points:
    """The first, last, smallest and largest point of each bucket, in order, each once."""
    steps = buckets.ints[[0, 2, 4, 6]].ravel()
    times = buckets.ints[[1, 3, 5, 7]].ravel()
    values = buckets.floats[:4].ravel()
    order = np.lexsort((values.view(np.int64), times, steps))
    steps, times, values = steps[order], times[order], values[order]
    new = np.r_[
        True,
        (steps[1:] != steps[:-1])
        | (times[1:] != times[:-1])
        | (values.view(np.int64)[1:] != values.view(np.int64)[:-1]),
    ]
    return Points(steps=steps[new], times_ms=times[new], values=values[new])
