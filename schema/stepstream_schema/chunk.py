"""A chunk: up to 8192 points of one series, in canonical order, as bytes. Level 1 of the store.

Steps and times come first, as a block of their own: series that are logged together share it, byte for byte, and it is
compressed once for all of them. Values that are float32 in truth are kept as such. Every bit pattern survives.
The byte layout is described in docs/wire-format.md.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgpack
import numpy as np

from stepstream_schema import columns, zstd
from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.errors import FrameError
from stepstream_schema.points import Points

VERSION: Final = 1
MAX_POINTS: Final = 8192
"""One chunk: large enough that a million steps are some hundred rows, small enough to open for a few pixels."""
BUCKET_POINTS: Final = 128
"""Points a bucket of the chunk's own summary: a chart of 100,000 points has some 800 of them, and no body is opened."""

FLOAT64: Final = 0
FLOAT32: Final = 1
WORDS: Final = {FLOAT64: 8, FLOAT32: 4}


@dataclass(frozen=True, slots=True)
class Index:
    """Steps and times of a chunk, encoded: shared by the series that were logged together."""

    count: int
    step_header: list[int]
    time_header: list[int]
    block: bytes


def encode_index(steps: Int64s, times_ms: Int64s) -> Index:
    """The index of n points in canonical order, 1 <= n <= 8192."""
    step_header, step_bytes = columns.encode_ints(steps)
    time_header, time_bytes = columns.encode_ints(times_ms)
    sections = [step_bytes, time_bytes]
    block = columns.deflate(sections) if any(sections) else b""
    return Index(len(steps), step_header, time_header, block)


def encode_values(index: Index, values: Float64s) -> list[bytes]:
    """The bodies of k series that share an index, from contiguous values of shape (k, n)."""
    kind, words = FLOAT64, values.view(np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        halves = values.astype(np.float32)
    if np.array_equal(halves.astype(np.float64).view(np.int64), values.view(np.int64)):
        kind, words = FLOAT32, halves.view(np.uint8)
    planes = words.reshape(len(values), index.count, WORDS[kind]).transpose(0, 2, 1)
    raw = np.ascontiguousarray(planes).reshape(len(values), -1)
    head = [VERSION, index.count, index.step_header, index.time_header, index.block, kind]
    prefix = msgpack.packb(head)
    # The array of six becomes one of seven: the last field is the series' own.
    start = bytes([prefix[0] + 1]) + prefix[1:]
    return [start + msgpack.packb(block) for block in zstd.compress_each([row.data for row in raw])]


def encode(points: Points) -> bytes:
    """The body of one series."""
    return encode_values(encode_index(points.steps, points.times_ms), points.values[None, :])[0]


def decode(body: bytes) -> Points:
    """The points behind a body. Raises FrameError `malformed` for what is none."""
    count, step_header, time_header, block, kind, values = _fields(body)
    steps, times = _decode_index(count, step_header, time_header, block)
    return Points(steps=steps, times_ms=times, values=_decode_values(kind, count, values))


def index_bytes(body: bytes) -> bytes:
    """What two series have in common when they share steps and times: equal bytes, equal index."""
    count, step_header, time_header, block, _, _ = _fields(body)
    packed: bytes = msgpack.packb([count, step_header, time_header, block])
    return packed


def decode_values(body: bytes) -> Float64s:
    """The values alone."""
    count, _, _, _, kind, values = _fields(body)
    return _decode_values(kind, count, values)


def _fields(body: bytes) -> tuple[int, list[int], list[int], bytes, int, bytes]:
    try:
        envelope: Any = msgpack.unpackb(body)
    except ValueError as error:
        raise FrameError("malformed", f"a chunk is not msgpack: {error}") from error
    match envelope:
        case [1, int(count), list(steps), list(times), bytes(block), int(kind), bytes(values)] if (
            0 < count <= MAX_POINTS and kind in WORDS
        ):
            return count, steps, times, block, kind, values
    raise FrameError("malformed", "a chunk has the wrong fields")


def _decode_index(count: int, step_header: list[int], time_header: list[int], block: bytes) -> tuple[Int64s, Int64s]:
    step_size = columns.ints_size(step_header, count)
    raw = columns.inflate(block, step_size + columns.ints_size(time_header, count))
    return (
        columns.decode_ints(step_header, count, raw[:step_size]),
        columns.decode_ints(time_header, count, raw[step_size:]),
    )


def _decode_values(kind: int, count: int, block: bytes) -> Float64s:
    size = WORDS[kind]
    raw = columns.inflate(block, count * size)
    words = columns.interleaved(raw.reshape(size, count))
    return words.view(np.float64).ravel() if kind == FLOAT64 else words.view(np.float32).ravel().astype(np.float64)
