"""Some points of a history for a chart: its ends, and of each bucket between the extremes."""

from typing import Final

import numpy as np
import numpy.typing as npt

from stepstream_ingest.read import view
from stepstream_ingest.read.history import History, Wanted, Window
from stepstream_schema import buckets as summaries
from stepstream_schema.buckets import Buckets
from stepstream_schema.points import Points

POINTS_PER_BUCKET: Final = 4
EVEN: Final = 2
"""Steps are spread evenly when at least 1/2 of the buckets hold points."""

FEW: Final = {1: [-1], 2: [0, -1], 3: [0, 1, -1]}
"""Which points of a lone bucket are said where four are too many; MLflow takes one alone to be the last."""


async def sample(history: History, wanted: Wanted, window: Window, most: int) -> Points:
    """At most so many points, in canonical order: the first, the last, and of each bucket the smallest and largest.

    MLflow takes every n-th, which loses a spike of one step.
    """
    count = max(1, most // POINTS_PER_BUCKET)
    _, ((_, line),) = await history.buckets([wanted], window, count)
    whole = int(line.int_column("count").sum())
    if whole <= most:
        return await history.points(wanted, window)
    if len(line) * EVEN < count:
        # Most points share few steps, such as step 0 of whoever names none.
        line = await _of_equal_size(history, wanted, window, whole, count)
    return _few(view.real_points(line), most)


async def _of_equal_size(history: History, wanted: Wanted, window: Window, whole: int, count: int) -> Buckets:
    """Buckets of as many points each; the series is read from one end to the other, and never held."""
    parts: list[Buckets] = []
    shares: list[npt.NDArray[np.int64]] = []
    passed = 0
    async for points in history.stream(wanted, window):
        if len(points):
            places = np.minimum((passed + np.arange(len(points))) * count // whole, count - 1)
            starts = _starts(places)
            parts.append(summaries.of_points(points.steps, points.times_ms, points.values, starts))
            shares.append(places[starts])
            passed += len(points)
    return summaries.merge(summaries.joined(parts), _starts(np.concatenate(shares))) if shares else summaries.NONE


def _starts(places: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.r_[True, places[1:] != places[:-1]])


def _few(points: Points, most: int) -> Points:
    return points if len(points) <= most else points.take(np.array(FEW[most]))
