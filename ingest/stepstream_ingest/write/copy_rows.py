"""Rows of the table `frames` in PostgreSQL's binary COPY format. Pure.

The format: https://www.postgresql.org/docs/current/sql-copy.html (section "Binary Format"); arrays as array_send writes
them. Written here because a driver encodes arrays element by element, which would cost more than all the rest.
"""

import struct
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from stepstream_ingest.write.summary import Summary
from stepstream_schema.frame import Frame

COLUMNS: Final = (
    "run_id",
    "writer",
    "seq",
    "rank",
    "attempt",
    "received_at",
    "points",
    "keys",
    "counts",
    "last_steps",
    "last_times_ms",
    "lasts",
    "mins",
    "maxs",
    "body",
)
OID_INT4: Final = 23
OID_INT8: Final = 20
OID_FLOAT8: Final = 701
OID_TEXT: Final = 25
ELEMENTS: Final = {
    oid: np.dtype([("size", ">i4"), ("value", kind)])
    for oid, kind in ((OID_INT4, ">i4"), (OID_INT8, ">i8"), (OID_FLOAT8, ">f8"))
}
"""An element of an array of numbers, its length before it."""
SIZES: Final = {oid: element["value"].itemsize for oid, element in ELEMENTS.items()}

POSTGRES_EPOCH_S: Final = 946_684_800
"""2000-01-01 in seconds since 1970: PostgreSQL's timestamps count microseconds from there."""

_HEAD: Final = struct.Struct("!hi16siqiq")
_NULL: Final = struct.pack("!i", -1)


def encode_row(frame: Frame, summary: Summary, body: bytes, received_at_us: int) -> bytes:
    """One row; `received_at_us` in microseconds since 1970."""
    rank = _NULL if frame.rank is None else struct.pack("!ii", 4, frame.rank)
    received = received_at_us - POSTGRES_EPOCH_S * 1_000_000
    return b"".join(
        (
            _HEAD.pack(len(COLUMNS), 16, bytes.fromhex(frame.run_id), 8, frame.writer, 8, frame.seq),
            rank,
            struct.pack("!iqiqii", 8, frame.attempt.packed, 8, received, 4, frame.points),
            encode_texts(summary.keys),
            encode_numbers(summary.counts, OID_INT4),
            encode_numbers(summary.last_steps, OID_INT8),
            encode_numbers(summary.last_times_ms, OID_INT8),
            encode_numbers(summary.lasts, OID_FLOAT8),
            encode_numbers(summary.mins, OID_FLOAT8),
            encode_numbers(summary.maxs, OID_FLOAT8),
            struct.pack("!i", len(body)),
            body,
        )
    )


def encode_numbers(values: npt.NDArray[np.int64] | npt.NDArray[np.float64], oid: int) -> bytes:
    """A one-dimensional array of numbers as a field, its length before it."""
    elements = np.empty(len(values), ELEMENTS[oid])
    elements["size"] = SIZES[oid]
    elements["value"] = values
    return _array(len(values), oid, elements.tobytes())


@lru_cache(maxsize=256)
def encode_texts(texts: tuple[str, ...]) -> bytes:
    """A one-dimensional array of texts as a field; cached, since a writer logs the same keys all day."""
    encoded = [text.encode() for text in texts]
    return _array(len(texts), OID_TEXT, b"".join(struct.pack("!i", len(text)) + text for text in encoded))


def _array(count: int, oid: int, elements: bytes) -> bytes:
    if not count:
        return struct.pack("!iiii", 12, 0, 0, oid)
    # One dimension, no nulls, the element type, the count, and the lower bound 1.
    field = struct.pack("!iiiii", 1, 0, oid, count, 1) + elements
    return struct.pack("!i", len(field)) + field
