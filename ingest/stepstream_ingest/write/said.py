"""Points as a request says them, and as the record that is stored. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.records import Matrix, Metrics, Ragged


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """Four columns of one length, in any order.

    Lists, not arrays, where a request repeats one number in a whole row: that is found out by comparing, and those of
    a thousand points need not become an array first.
    """

    keys: list[str]
    steps: list[int]
    """int64."""
    times_ms: list[int]
    """int64, ms since the epoch, UTC."""
    values: Float64s
    row: tuple[str, ...] | None = None
    """`row_of` the keys, of who has asked that before."""


def record_of(points: Said) -> Metrics | None:
    """The points as columns, each key's in the order they came; None where there are none."""
    if not points.keys:
        return None
    row = points.row or row_of(points.keys)
    return _by_key(points) if row is None else _in_rows(row, points)


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


def _in_rows(row: tuple[str, ...], points: Said) -> Metrics:
    width, count = len(row), len(points.keys) // len(row)
    steps, times_ms = _of_rows(points.steps, width), _of_rows(points.times_ms, width)
    values = points.values.reshape(count, width).T
    if steps is not None and times_ms is not None:
        return Matrix(keys=row, steps=_int64s(steps), times_ms=_int64s(times_ms), values=np.ascontiguousarray(values))
    return Ragged(
        keys=row,
        counts=np.full(width, count, np.int64),
        steps=_int64s(points.steps).reshape(count, width).T.ravel(),
        times_ms=_int64s(points.times_ms).reshape(count, width).T.ravel(),
        values=values.ravel(),
    )


def _of_rows(numbers: list[int], width: int) -> list[int] | None:
    """The number of each row, where all of a row have the same; None otherwise."""
    firsts = numbers[::width]
    for place, first in enumerate(firsts):
        if numbers[place * width : (place + 1) * width].count(first) < width:
            return None
    return firsts


def _by_key(points: Said) -> Ragged:
    keys = sorted(set(points.keys))
    places = {key: place for place, key in enumerate(keys)}
    of_keys = np.fromiter(map(places.__getitem__, points.keys), np.int64, len(points.keys))
    order = np.argsort(of_keys, kind="stable")
    return Ragged(
        keys=tuple(keys),
        counts=np.bincount(of_keys, minlength=len(keys)).astype(np.int64),
        steps=_int64s(points.steps)[order],
        times_ms=_int64s(points.times_ms)[order],
        values=points.values[order],
    )


def _int64s(numbers: Sequence[int]) -> Int64s:
    # Told how many come, NumPy does not look through them twice.
    return np.fromiter(numbers, np.int64, len(numbers))
