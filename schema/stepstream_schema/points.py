"""Points of one series, in their canonical order."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepstream_schema.columns import Float64s, Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Columns of equal length n.

    Canonical order: by (step, time, value), NaN before every number, so that the last point of a series is the one
    that MLflow calls its latest.
    """

    steps: Int64s
    times_ms: Int64s
    values: Float64s

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, places: Any) -> "Points":
        """The points at these places: an index array, a mask or a slice."""
        return Points(steps=self.steps[places], times_ms=self.times_ms[places], values=self.values[places])


NONE = Points(steps=np.empty(0, np.int64), times_ms=np.empty(0, np.int64), values=np.empty(0))


def joined(parts: Iterable[Points]) -> Points:
    """All parts, one after the other."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NONE
    return Points(
        steps=np.concatenate([part.steps for part in parts]),
        times_ms=np.concatenate([part.times_ms for part in parts]),
        values=np.concatenate([part.values for part in parts]),
    )


def canonical(points: Points) -> Points:
    """The same points in canonical order."""
    if is_strictly_ordered(points.steps, points.times_ms):
        return points
    lowest_nan = np.where(np.isnan(points.values), -np.inf, points.values)
    # NaN and -Inf at the same place: NaN first.
    return points.take(np.lexsort((~np.isnan(points.values), lowest_nan, points.times_ms, points.steps)))


def is_strictly_ordered(steps: Int64s, times_ms: Int64s) -> bool:
    """Whether (step, time) only grows, so that values need not be asked."""
    # Compared, not subtracted: a difference of int64 may wrap.
    later = steps[1:] > steps[:-1]
    if later.all():
        return True
    return bool((later | ((steps[1:] == steps[:-1]) & (times_ms[1:] > times_ms[:-1]))).all())


def in_steps(points: Points, start: int | None, end: int | None) -> Points:
    """The points whose step lies between `start` and `end`, both included, of points that are in order."""
    low = 0 if start is None else int(np.searchsorted(points.steps, start, "left"))
    high = len(points) if end is None else int(np.searchsorted(points.steps, end, "right"))
    return points.take(slice(low, max(low, high)))


def distinct(points: Points) -> Points:
    """Points in canonical order, each once: equal are those of one step, time and value, and any two NaN."""
    if len(points) < 2 or is_strictly_ordered(points.steps, points.times_ms):
        return points
    values = points.values
    same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    same &= (points.steps[1:] == points.steps[:-1]) & (points.times_ms[1:] == points.times_ms[:-1])
    return points if not same.any() else points.take(np.concatenate([[True], ~same]))


def without(points: Points, others: Points) -> Points:
    """The distinct points that are not among `others`, both in canonical order."""
    known = distinct(others)
    both = joined([known, distinct(points)])
    order = np.lexsort(
        (
            np.arange(len(both)) >= len(known),
            ~np.isnan(both.values),
            np.where(np.isnan(both.values), -np.inf, both.values),
            both.times_ms,
            both.steps,
        )
    )
    ordered = both.take(order)
    values = ordered.values
    same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    same &= (ordered.steps[1:] == ordered.steps[:-1]) & (ordered.times_ms[1:] == ordered.times_ms[:-1])
    new = order >= len(known)
    # An equal point of the others comes right before its twin.
    new[1:] &= ~same
    return ordered.take(new)
