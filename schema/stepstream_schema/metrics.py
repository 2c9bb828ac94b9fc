"""Records of metrics, as columns: their rows of the envelope and their one compressed body each."""

from functools import lru_cache
from typing import Any, Final

import numpy as np

from stepstream_schema import columns, limits, records
from stepstream_schema.errors import FrameError
from stepstream_schema.records import Matrix, Metrics, Ragged

KEY_SEPARATOR: Final = "\0"
"""Keys travel as one string: no array of 20,000 objects to unpack, and none for a hostile header to reserve."""

KNOWN_KEY_SETS: Final = 32
"""Sets of keys that are remembered: a run's frames carry the same few all day."""
MAX_KNOWN_CHARS: Final = 8192
"""Longer ones are not: all that is remembered takes 12 MB at most, as measured with the shortest keys."""


class Budget:
    """What a frame's records may still claim, all of them together."""

    def __init__(self) -> None:
        self._bytes = limits.MAX_INFLATED_BYTES
        self._keys = limits.MAX_KEYS_PER_FRAME
        self._points = limits.MAX_POINTS_PER_FRAME

    def take(self, *, keys: int, points: int, inflated_bytes: int) -> None:
        """Claim that much, or raise FrameError `too_large`."""
        self._keys -= keys
        self._points -= points
        self._bytes -= inflated_bytes
        if self._bytes < 0 or self._keys < 0 or self._points < 0:
            raise FrameError(
                "too_large",
                f"a frame holds at most {limits.MAX_KEYS_PER_FRAME} keys, {limits.MAX_POINTS_PER_FRAME} points "
                f"and {limits.MAX_INFLATED_BYTES} bytes of columns",
            )


def encode_matrix(record: Matrix, budget: Budget) -> list[Any]:
    """The record's fields, its kind first."""
    if record.values.shape != (len(record.keys), len(record.steps)) or len(record.steps) != len(record.times_ms):
        raise FrameError("invalid", "values need the shape (keys, steps)")
    _check_words(record)
    _check_size(len(record.keys), record.points)
    joined = _encode_keys(record.keys)
    steps, step_bytes = columns.encode_ints(record.steps)
    times, time_bytes = columns.encode_ints(record.times_ms)
    sections = [step_bytes, time_bytes, columns.shuffle(record.values)]
    budget.take(keys=len(record.keys), points=record.points, inflated_bytes=sum(map(len, sections)))
    return [records.MATRIX, joined, len(record.steps), steps, times, columns.deflate(sections)]


def encode_ragged(record: Ragged, budget: Budget) -> list[Any]:
    """The record's fields, its kind first."""
    if len(record.counts) != len(record.keys) or not (
        int(record.counts.sum()) == len(record.steps) == len(record.times_ms) == len(record.values)
    ):
        raise FrameError("invalid", "counts must add up to the steps, times and values")
    _check_words(record)
    _check_size(len(record.keys), record.points)
    if int(record.counts.min()) < 1:
        raise FrameError("invalid", "a key of a ragged record has no point")
    joined = _encode_keys(record.keys)
    counts, count_bytes = columns.encode_ints(record.counts)
    steps, step_bytes = columns.encode_ints(record.steps)
    times, time_bytes = columns.encode_ints(record.times_ms)
    sections = [count_bytes, step_bytes, time_bytes, columns.shuffle(record.values)]
    budget.take(keys=len(record.keys), points=record.points, inflated_bytes=sum(map(len, sections)))
    return [records.RAGGED, joined, len(record.steps), counts, steps, times, columns.deflate(sections)]


def _encode_keys(keys: tuple[str, ...]) -> str:
    joined = KEY_SEPARATOR.join(keys)
    if _decode_keys(joined) != keys:
        raise FrameError("invalid", "a key holds a NUL character")
    return joined


def _check_words(record: Metrics) -> None:
    # float32 or big-endian words would be shuffled as they lie and come back as other numbers.
    ints = [record.steps, record.times_ms, *([record.counts] if isinstance(record, Ragged) else [])]
    if record.values.dtype != np.float64 or any(column.dtype != np.int64 for column in ints):
        raise FrameError("invalid", "values are float64; steps, times and counts are int64")


def _check_size(keys: int, points: int) -> None:
    if not keys or not points:
        raise FrameError("invalid", "a record of metrics holds at least one key and one point")
    if keys > limits.MAX_KEYS_PER_FRAME or points > limits.MAX_POINTS_PER_FRAME:
        bound = f"{limits.MAX_KEYS_PER_FRAME} keys and {limits.MAX_POINTS_PER_FRAME} points"
        raise FrameError("too_large", f"{keys} keys and {points} points exceed {bound}")


def decode_matrix(fields: list[Any], budget: Budget) -> Metrics:
    """The record behind the fields that follow its kind."""
    match fields:
        case [str(joined), int(count), list(step_head), list(time_head), bytes(body)] if count > 0:
            keys = _decode_keys(joined)
        case _:
            raise FrameError("malformed", "a matrix record has the wrong fields")
    step_size = _ints_size(step_head, count)
    time_size = _ints_size(time_head, count)
    points = len(keys) * count
    size = step_size + time_size + points * columns.WORD_BYTES
    budget.take(keys=len(keys), points=points, inflated_bytes=size)
    raw = columns.inflate(body, size)
    values = columns.unshuffle_floats(raw[step_size + time_size :].reshape(columns.WORD_BYTES, points))
    return Matrix(
        keys=keys,
        steps=columns.decode_ints(step_head, count, raw[:step_size]),
        times_ms=columns.decode_ints(time_head, count, raw[step_size : step_size + time_size]),
        values=values.reshape(len(keys), count),
    )


def decode_ragged(fields: list[Any], budget: Budget) -> Metrics:
    """The record behind the fields that follow its kind."""
    match fields:
        case [str(joined), int(total), list(count_head), list(step_head), list(time_head), bytes(body)] if total > 0:
            keys = _decode_keys(joined)
        case _:
            raise FrameError("malformed", "a ragged record has the wrong fields")
    heads = [(count_head, len(keys)), (step_head, total), (time_head, total)]
    sizes = [_ints_size(head, count) for head, count in heads]
    size = sum(sizes) + total * columns.WORD_BYTES
    budget.take(keys=len(keys), points=total, inflated_bytes=size)
    raw = columns.inflate(body, size)
    ints, start = [], 0
    for (head, count), length in zip(heads, sizes, strict=True):
        ints.append(columns.decode_ints(head, count, raw[start : start + length]))
        start += length
    counts, steps, times = ints
    if int(counts.min()) < 1 or int(counts.max()) > total or int(counts.sum()) != total:
        raise FrameError("malformed", "the counts of a ragged record do not add up to its points")
    values = columns.unshuffle_floats(raw[start:].reshape(columns.WORD_BYTES, total))
    return Ragged(keys=keys, counts=counts, steps=steps, times_ms=times, values=values)


def _ints_size(head: list[Any], count: int) -> int:
    # Said before anything is multiplied or reserved: a count of 2**63 must not reach NumPy.
    if count > limits.MAX_POINTS_PER_FRAME:
        raise FrameError("too_large", f"a column of {count} values exceeds {limits.MAX_POINTS_PER_FRAME}")
    return columns.ints_size(head, count)


def _decode_keys(joined: str) -> tuple[str, ...]:
    """The keys, each the same object as last time: what asks for their hashes later finds them known."""
    return _known_keys(joined) if len(joined) <= MAX_KNOWN_CHARS else _split_keys(joined)


def _split_keys(joined: str) -> tuple[str, ...]:
    if joined.count(KEY_SEPARATOR) >= limits.MAX_KEYS_PER_FRAME:
        raise FrameError("too_large", f"more than {limits.MAX_KEYS_PER_FRAME} keys")
    keys = tuple(joined.split(KEY_SEPARATOR))
    if len(set(keys)) != len(keys):
        raise FrameError("invalid", "a key stands twice in one record")
    if not all(keys):
        raise FrameError("invalid", "a key is empty")
    if len(max(keys, key=len)) > limits.MAX_KEY_CHARS:
        raise FrameError("invalid", f"a key is longer than {limits.MAX_KEY_CHARS} characters")
    return keys


_known_keys: Final = lru_cache(maxsize=KNOWN_KEY_SETS)(_split_keys)
