"""Rows of the table `chunks` in PostgreSQL's binary COPY format. Pure."""

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from stepstream_ingest.compact.gather import Block
from stepstream_schema import buckets as summaries
from stepstream_schema import chunk
from stepstream_schema.buckets import FLOATS, INTS, Buckets
from stepstream_schema.columns import ARITHMETIC, Float64s, Int64s

SQL_NAMES: Final = {
    "count": "points",
    "first": "first_value",
    "last": "last_value",
    "min": "min_value",
    "max": "max_value",
    "sum": "value_sum",
}
SUMMARY_COLUMNS: Final = tuple(SQL_NAMES.get(name, name) for name in (*INTS, *FLOATS))
COLUMNS: Final = ("run_id", "series_id", *SUMMARY_COLUMNS, "stride", "buckets", "body")

_FIXED: Final = np.dtype(
    [
        ("fields", ">i2"),
        ("run_size", ">i4"),
        ("run", "V16"),
        ("series_size", ">i4"),
        ("series", ">i4"),
        *[part for name in INTS for part in ((f"{name}_size", ">i4"), (name, ">i8"))],
        *[part for name in FLOATS for part in ((f"{name}_size", ">i4"), (name, ">f8"))],
        ("stride_size", ">i4"),
        ("stride", ">i8"),
    ]
)


_SIZE: Final = struct.Struct("!i")


@dataclass(frozen=True, slots=True)
class Written:
    """Rows for COPY, and the summary of all chunks of each series: ints of shape (12, k), floats of shape (5, k)."""

    rows: list[bytes]
    ints: Int64s
    floats: Float64s
    points_each: int


def encode_block(run_id: UUID, series: Sequence[int], block: Block) -> Written:
    """The chunks of a block whose keys have these numbers, in pieces of equal length."""
    pieces = -(-len(block.steps) // chunk.MAX_POINTS)
    edges = np.linspace(0, len(block.steps), pieces + 1).astype(np.intp).tolist()
    rows: list[bytes] = []
    ints: list[Int64s] = []
    floats: list[Float64s] = []
    for start, end in itertools.pairwise(edges):
        encoded, of_ints, of_floats = _encode_piece(run_id, series, block, start, end)
        rows += encoded
        ints.append(of_ints)
        floats.append(of_floats)
    whole_ints, whole_floats = _whole(np.concatenate(ints, axis=2), np.concatenate(floats, axis=2))
    return Written(rows, whole_ints, whole_floats, len(block.steps) // pieces)


def _encode_piece(
    run_id: UUID, series: Sequence[int], block: Block, start: int, end: int
) -> tuple[list[bytes], Int64s, Float64s]:
    steps, times, values = block.steps[start:end], block.times_ms[start:end], block.values[:, start:end]
    values = np.ascontiguousarray(values)
    index = chunk.encode_index(steps, times)
    bodies = chunk.encode_values(index, values)
    ints, floats = summaries.of_matrix(steps, times, values, chunk.BUCKET_POINTS)
    blocks = summaries.encode_many(ints, floats) if ints.shape[2] > 1 else [b""] * len(series)
    whole_ints, whole_floats = _whole(ints, floats)
    fixed = _fixed_parts(run_id, series, whole_ints, whole_floats, _stride(index))
    rows = [
        b"".join((head, _SIZE.pack(len(own)), own, _SIZE.pack(len(body)), body))
        for head, own, body in zip(fixed, blocks, bodies, strict=True)
    ]
    return rows, whole_ints.T[:, :, None], whole_floats.T[:, :, None]


def _stride(index: chunk.Index) -> int:
    if index.count == 1:
        return 1
    return max(0, index.step_header[2]) if index.step_header[0] == ARITHMETIC else 0


def _whole(ints: Int64s, floats: Float64s) -> tuple[Int64s, Float64s]:
    """One bucket of each series' buckets: (k, 12, b) and (k, 5, b) become (12, k) and (5, k)."""
    series, _, count = ints.shape
    each = np.arange(series)
    # NaN stands in these rows only where a bucket has nothing else.
    smallest = np.where(np.isnan(floats[:, 2]), np.inf, floats[:, 2]).argmin(axis=1)
    largest = np.where(np.isnan(floats[:, 3]), -np.inf, floats[:, 3]).argmax(axis=1)
    whole = Buckets(np.empty((len(INTS), series), np.int64), np.empty((len(FLOATS), series)))
    parts = (
        (summaries.FIRST, 0, np.zeros(series, np.intp)),
        (summaries.LAST, 1, np.full(series, count - 1)),
        (summaries.MIN, 2, _numbers_first(floats[:, 2], smallest)),
        (summaries.MAX, 3, _numbers_first(floats[:, 3], largest)),
    )
    for where, row, places in parts:
        whole.ints[where] = ints[each, where, places].T
        whole.floats[row] = floats[each, row, places]
    whole.ints[summaries.COUNTS] = ints[:, summaries.COUNTS].sum(axis=2).T
    with np.errstate(over="ignore", invalid="ignore"):
        whole.floats[4] = floats[:, 4].sum(axis=1)
    return whole.ints, whole.floats


def _numbers_first(values: Float64s, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The places, but where one holds NaN while the row has a number, which can only be infinite, that one's."""
    wrong = np.isnan(np.take_along_axis(values, places[:, None], axis=1)[:, 0])
    return np.where(wrong, np.argmin(np.isnan(values), axis=1), places)


def _fixed_parts(run_id: UUID, series: Sequence[int], ints: Int64s, floats: Float64s, stride: int) -> list[bytes]:
    fixed = np.zeros(len(series), _FIXED)
    fixed["fields"] = len(COLUMNS)
    fixed["run_size"], fixed["run"] = 16, np.void(run_id.bytes)
    fixed["series_size"], fixed["series"] = 4, series
    for row, name in enumerate(INTS):
        fixed[f"{name}_size"], fixed[name] = 8, ints[row]
    for row, name in enumerate(FLOATS):
        fixed[f"{name}_size"], fixed[name] = 8, floats[row]
    fixed["stride_size"], fixed["stride"] = 8, stride
    return [row.tobytes() for row in fixed]
