"""Summaries of neighbouring points: what a chart draws when it has fewer pixels than points.

First, last, smallest and largest point of each bucket are real points with their step and time (M4: Jugel et al., "M4:
A Visualization-Oriented Time Series Data Aggregation", VLDB 2014), so a spike of one step is seen at every zoom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stepstream_schema import zstd
from stepstream_schema.columns import Float64s, Int64s, unshuffle_ints
from stepstream_schema.errors import FrameError

INTS: Final = (
    "first_step",
    "first_time_ms",
    "last_step",
    "last_time_ms",
    "min_step",
    "min_time_ms",
    "max_step",
    "max_time_ms",
    "count",
    "nans",
    "pos_infs",
    "neg_infs",
)
FLOATS: Final = ("first", "last", "min", "max", "sum")

FIRST, LAST, MIN, MAX = (slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8))
COUNTS: Final = slice(8, 12)
MAX_BUCKETS: Final = 2**16
"""More are never in one block; a damaged header must not reserve memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """b consecutive buckets of one series.

    Law: merging the buckets of parts equals the buckets of the whole. Minimum and maximum pass over NaN unless a
    bucket has nothing else; the sum is over finite values alone.
    """

    ints: Int64s
    """Shape (12, b), in the order of INTS."""
    floats: Float64s
    """Shape (5, b), in the order of FLOATS."""

    def __len__(self) -> int:
        return int(self.ints.shape[1])

    def int_column(self, name: str) -> Int64s:
        """The column called `name` in INTS."""
        column: Int64s = self.ints[INTS.index(name)]
        return column

    def float_column(self, name: str) -> Float64s:
        """The column called `name` in FLOATS."""
        column: Float64s = self.floats[FLOATS.index(name)]
        return column

    @property
    def means(self) -> Float64s:
        """Mean of the finite values; NaN where there is none."""
        finite = self.ints[8] - self.ints[9] - self.ints[10] - self.ints[11]
        means: Float64s = np.divide(self.floats[4], finite, out=np.full(len(self), np.nan), where=finite > 0)
        return means

    def take(self, places: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "Buckets":
        """The buckets at these places."""
        return Buckets(self.ints[:, places], self.floats[:, places])


NONE: Final = Buckets(np.empty((len(INTS), 0), np.int64), np.empty((len(FLOATS), 0)))


def of_matrix(steps: Int64s, times_ms: Int64s, values: Float64s, size: int) -> tuple[Int64s, Float64s]:
    """Buckets of `size` neighbouring points of k series that share steps and times, given as values of shape (k, n).

    Returns ints of shape (k, 12, b) and floats of shape (k, 5, b).
    """
    series, points = values.shape
    count = -(-points // size)
    starts = np.arange(count) * size
    ends = np.minimum(starts + size, points)
    ints = np.zeros((series, len(INTS), count), np.int64)
    floats = np.empty((series, len(FLOATS), count))
    ints[:, 0], ints[:, 1] = steps[starts], times_ms[starts]
    ints[:, 2], ints[:, 3] = steps[ends - 1], times_ms[ends - 1]
    ints[:, 8] = ends - starts
    floats[:, 0], floats[:, 1] = values[:, starts], values[:, ends - 1]
    finite = np.isfinite(values)
    if finite.all():
        low = high = summed = values
    else:
        nan = np.isnan(values)
        low, high = np.where(nan, np.inf, values), np.where(nan, -np.inf, values)
        summed = np.where(finite, values, 0.0)
        for row, mask in ((9, nan), (10, values == np.inf), (11, values == -np.inf)):
            ints[:, row] = np.add.reduceat(mask, starts, axis=1, dtype=np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        floats[:, 4] = np.add.reduceat(summed, starts, axis=1)
    for floats_row, at, side in ((2, 4, -1), (3, 6, 1)):
        places = _extreme_places(low if side < 0 else high, count, size, side)
        _numbers_first(values, places, starts, ends)
        floats[:, floats_row] = np.take_along_axis(values, places, axis=1)
        ints[:, at], ints[:, at + 1] = steps[places], times_ms[places]
    return ints, floats


def _extreme_places(values: Float64s, count: int, size: int, side: int) -> npt.NDArray[np.intp]:
    """Where each bucket's smallest (side -1) or largest (side 1) value stands, the first of equals: shape (k, b)."""
    series, points = values.shape
    whole = points // size
    places = np.empty((series, count), np.intp)
    head = values[:, : whole * size].reshape(series, whole, size)
    find = np.argmin if side < 0 else np.argmax
    if whole:
        places[:, :whole] = find(head, axis=2) + np.arange(whole) * size
    if whole < count:
        places[:, whole] = find(values[:, whole * size :], axis=1) + whole * size
    return places


def _numbers_first(
    values: Float64s, places: npt.NDArray[np.intp], starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
) -> None:
    """Where a NaN was taken for its bucket's extreme, the bucket's first number, which then is as infinite as any."""
    taken = np.isnan(np.take_along_axis(values, places, axis=1))
    if not taken.any():
        return
    # Mostly a bucket that has one has nothing else.
    mixed = taken & (np.add.reduceat(~np.isnan(values), starts, axis=1, dtype=np.int64) > 0)
    for series, bucket in np.argwhere(mixed):
        own = np.isnan(values[series, starts[bucket] : ends[bucket]])
        places[series, bucket] = starts[bucket] + np.argmin(own)


def of_points(steps: Int64s, times_ms: Int64s, values: Float64s, starts: npt.NDArray[np.intp]) -> Buckets:
    """Buckets of one series that begin at these places, the first at 0, none empty."""
    each = Buckets(
        np.stack([steps, times_ms] * 4 + [np.ones(len(steps), np.int64), *_kinds(values)]),
        np.stack([values] * 4 + [np.where(np.isfinite(values), values, 0.0)]),
    )
    return merge(each, starts)


def _kinds(values: Float64s) -> list[Int64s]:
    return [mask.astype(np.int64) for mask in (np.isnan(values), values == np.inf, values == -np.inf)]


def merge(parts: Buckets, starts: npt.NDArray[np.intp]) -> Buckets:
    """Neighbouring buckets made one: those from each of `starts` up to the next; the first start is 0."""
    if not len(parts):
        return parts
    ends = np.append(starts[1:], len(parts)) - 1
    ints = np.empty((len(INTS), len(starts)), np.int64)
    floats = np.empty((len(FLOATS), len(starts)))
    ints[FIRST], ints[LAST] = parts.ints[FIRST, starts], parts.ints[LAST, ends]
    floats[0], floats[1] = parts.floats[0, starts], parts.floats[1, ends]
    ints[COUNTS] = np.add.reduceat(parts.ints[COUNTS], starts, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        floats[4] = np.add.reduceat(parts.floats[4], starts)
    smallest = _places_of_extremes(parts.floats[2], starts, smallest=True)
    largest = _places_of_extremes(parts.floats[3], starts, smallest=False)
    floats[2], floats[3] = parts.floats[2, smallest], parts.floats[3, largest]
    ints[MIN], ints[MAX] = parts.ints[MIN, smallest], parts.ints[MAX, largest]
    return Buckets(ints, floats)


def _places_of_extremes(values: Float64s, starts: npt.NDArray[np.intp], *, smallest: bool) -> npt.NDArray[np.intp]:
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    key = np.where(np.isnan(values), np.inf, values if smallest else -values)
    # Sorted by (bucket, value, place): the first of each bucket is its extreme; a NaN only where all are NaN or
    # infinite on the wrong side, which then is told apart by asking for numbers first.
    order = np.lexsort((np.isnan(values), key, owner))
    return order[starts]


def joined(parts: Sequence[Buckets]) -> Buckets:
    """Buckets one after the other."""
    if not parts:
        return NONE
    return Buckets(
        np.concatenate([part.ints for part in parts], axis=1), np.concatenate([part.floats for part in parts], axis=1)
    )


def encode_many(ints: Int64s, floats: Float64s) -> list[bytes]:
    """One block for each of k series, from ints of shape (k, 12, b) and floats of shape (k, 5, b)."""
    series, _, count = ints.shape
    with np.errstate(over="ignore"):
        words = np.concatenate([ints[:, :, :1], np.diff(ints, axis=2)] if count > 1 else [ints], axis=2)
    words = np.concatenate([words, floats.view(np.int64)], axis=1)
    planes = np.ascontiguousarray(words).view(np.uint8).reshape(series, -1, 8).transpose(0, 2, 1)
    raw = np.ascontiguousarray(planes).reshape(series, -1)
    return zstd.compress_each([row.data for row in raw], checksum=False)


def decode(block: bytes) -> Buckets:
    """The buckets behind one block. Raises FrameError `malformed` for what is none."""
    rows = len(INTS) + len(FLOATS)
    try:
        size = zstd.stated_size(block)
        if size > MAX_BUCKETS * rows * 8 or size % (rows * 8):
            raise FrameError("malformed", f"a block of buckets states {size} bytes")
        raw = zstd.decompress(block)
    except zstd.ZstdError as error:
        raise FrameError("malformed", f"a block of buckets does not inflate: {error}") from error
    words = unshuffle_ints(np.frombuffer(raw, np.uint8).reshape(8, -1)).reshape(rows, -1)
    ints = np.cumsum(words[: len(INTS)], axis=1, dtype=np.int64)
    return Buckets(ints, words[len(INTS) :].view(np.float64))
