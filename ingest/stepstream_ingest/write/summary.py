"""What SQL needs to know of a frame without opening it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.records import Matrix, Metrics, Ragged


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summary:
    """Arrays by key, each of shape (k,).

    Law: last is the value of the largest (step, time, value), NaN counting as the smallest value; min and max pass
    over NaN unless a key has nothing else; merging summaries of parts equals the summary of the whole.
    """

    keys: tuple[str, ...]
    counts: Int64s
    last_steps: Int64s
    last_times_ms: Int64s
    lasts: Float64s
    mins: Float64s
    maxs: Float64s


EMPTY = Summary(
    keys=(),
    counts=np.empty(0, np.int64),
    last_steps=np.empty(0, np.int64),
    last_times_ms=np.empty(0, np.int64),
    lasts=np.empty(0),
    mins=np.empty(0),
    maxs=np.empty(0),
)


def summarise(metrics: Iterable[Metrics]) -> Summary:
    """The summary of all metric records of one frame; a key that stands in several is merged."""
    parts = [_of_matrix(record) if isinstance(record, Matrix) else _of_ragged(record) for record in metrics]
    if not parts:
        return EMPTY
    if len(parts) == 1:
        return parts[0]
    keys = tuple(key for part in parts for key in part.keys)
    if len(set(keys)) == len(keys):
        return _concatenate(parts, keys)
    return _merge(_concatenate(parts, keys))


def _of_matrix(record: Matrix) -> Summary:
    keys, values = len(record.keys), record.values
    place = _last_place(record.steps, record.times_ms)
    if place is None:
        return _of_ragged(_as_ragged(record))
    return Summary(
        keys=record.keys,
        counts=np.full(keys, len(record.steps), np.int64),
        last_steps=np.full(keys, record.steps[place], np.int64),
        last_times_ms=np.full(keys, record.times_ms[place], np.int64),
        lasts=values[:, place],
        mins=np.fmin.reduce(values, axis=1),
        maxs=np.fmax.reduce(values, axis=1),
    )


def _last_place(steps: Int64s, times_ms: Int64s) -> int | None:
    """Where the largest (step, time) stands; None when two share it and the values must decide."""
    if len(steps) == 1 or steps[-1] > steps[:-1].max():
        return len(steps) - 1
    newest = np.flatnonzero(steps == steps.max())
    latest = newest[times_ms[newest] == times_ms[newest].max()]
    return int(latest[0]) if len(latest) == 1 else None


def _as_ragged(record: Matrix) -> Ragged:
    keys, steps = record.values.shape
    return Ragged(
        keys=record.keys,
        counts=np.full(keys, steps, np.int64),
        steps=np.tile(record.steps, keys),
        times_ms=np.tile(record.times_ms, keys),
        values=record.values.ravel(),
    )


def _of_ragged(record: Ragged) -> Summary:
    offsets = record.offsets
    last = offsets + record.counts - 1
    if not _steps_rise(record.steps, offsets):
        owner = np.repeat(np.arange(len(record.keys)), record.counts)
        last = np.lexsort((_nan_lowest(record.values), record.times_ms, record.steps, owner))[last]
    return Summary(
        keys=record.keys,
        counts=record.counts,
        last_steps=record.steps[last],
        last_times_ms=record.times_ms[last],
        lasts=record.values[last],
        mins=np.fmin.reduceat(record.values, offsets),
        maxs=np.fmax.reduceat(record.values, offsets),
    )


def _steps_rise(steps: Int64s, offsets: Int64s) -> bool:
    """Whether each key's last point is the last that stands there; so it nearly always is, and sorting takes longer."""
    rises = steps[1:] > steps[:-1]
    rises[offsets[1:] - 1] = True
    return bool(rises.all())


def _nan_lowest(values: Float64s) -> Float64s:
    return np.where(np.isnan(values), -np.inf, values)


def _concatenate(parts: list[Summary], keys: tuple[str, ...]) -> Summary:
    return Summary(
        keys=keys,
        counts=np.concatenate([part.counts for part in parts]),
        last_steps=np.concatenate([part.last_steps for part in parts]),
        last_times_ms=np.concatenate([part.last_times_ms for part in parts]),
        lasts=np.concatenate([part.lasts for part in parts]),
        mins=np.concatenate([part.mins for part in parts]),
        maxs=np.concatenate([part.maxs for part in parts]),
    )


def _merge(parts: Summary) -> Summary:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(parts.keys))}
    owner = np.array([numbers[key] for key in parts.keys])
    order = np.lexsort((_nan_lowest(parts.lasts), parts.last_times_ms, parts.last_steps, owner))
    starts = np.searchsorted(owner[order], np.arange(len(numbers)))
    last = order[np.append(starts[1:], len(order)) - 1]
    return Summary(
        keys=tuple(numbers),
        counts=np.add.reduceat(parts.counts[order], starts),
        last_steps=parts.last_steps[last],
        last_times_ms=parts.last_times_ms[last],
        lasts=parts.lasts[last],
        mins=np.fmin.reduceat(parts.mins[order], starts),
        maxs=np.fmax.reduceat(parts.maxs[order], starts),
    )
