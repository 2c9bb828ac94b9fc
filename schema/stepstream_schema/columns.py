"""Columns of numbers as bytes: deltas where regular, byte planes, one zstd block for the columns of a record.

A record's *body* is the concatenation of its columns, compressed once. Every column's size in the body follows from
counts that the envelope states, so a decoder knows the inflated size before it inflates anything.

The byte shuffle (all first bytes, then all second bytes, ...) is the filter of Blosc and HDF5: neighbouring floats
share sign, exponent and high mantissa bytes, which zstd then finds as runs.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from stepstream_schema import zstd
from stepstream_schema.errors import FrameError

Int64s: TypeAlias = npt.NDArray[np.int64]
Float64s: TypeAlias = npt.NDArray[np.float64]
Bytes8: TypeAlias = npt.NDArray[np.uint8]

ARITHMETIC: Final = 0
"""[0, first, stride]: value i is first + i * stride; takes nothing in the body."""
DELTA: Final = 1
"""[1, first]: the n - 1 differences as shuffled int64, modulo 2**64, so that every int64 survives."""

WORD_BYTES: Final = 8
MANY_WORDS: Final = 2048
"""From here on eight passes, a plane each, beat NumPy's one pass of eight bytes a word: 2.5 times at 50,000 words."""


def shuffle(words: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> bytes:
    """The 8-byte words of a contiguous array as eight byte planes."""
    return np.ascontiguousarray(words).view(np.uint8).reshape(-1, WORD_BYTES).T.tobytes()


def unshuffle_floats(planes: Bytes8) -> Float64s:
    """The float64 words behind eight byte planes, given as an array of shape (8, n)."""
    return interleaved(planes).view(np.float64).ravel()


def unshuffle_ints(planes: Bytes8) -> Int64s:
    """The int64 words behind eight byte planes, given as an array of shape (8, n)."""
    return interleaved(planes).view(np.int64).ravel()


def interleaved(planes: Bytes8) -> Bytes8:
    """A word of k bytes a row, shape (n, k), from a byte plane a row, shape (k, n)."""
    size, count = planes.shape
    if count < MANY_WORDS:
        return np.ascontiguousarray(planes.T)
    words = np.empty((count, size), np.uint8)
    for place, plane in enumerate(planes):
        words[:, place] = plane
    return words


def encode_ints(values: Int64s) -> tuple[list[int], bytes]:
    """An int64 column as (header for the envelope, bytes for the body)."""
    first = int(values[0])
    deltas = values[1:] - values[:-1]
    stride = int(deltas[0]) if len(deltas) else 0
    # A stride that wraps would describe the column only modulo 2**64, so it goes the other way.
    if (deltas == stride).all() and -(2**63) <= first + stride * len(deltas) < 2**63:
        return [ARITHMETIC, first, stride], b""
    return [DELTA, first], shuffle(deltas)


def ints_size(header: object, count: int) -> int:
    """How many body bytes the int64 column of `count` values behind `header` takes."""
    match header:
        case [0, int(), int()]:
            return 0
        case [1, int()]:
            return (count - 1) * WORD_BYTES
    raise FrameError("malformed", "an integer column has an unknown header")


def decode_ints(header: list[int], count: int, section: Bytes8) -> Int64s:
    """The int64 column behind `header` and its `section` of the body."""
    first = header[1]
    if header[0] == ARITHMETIC:
        stride = header[2]
        last = first + stride * (count - 1)
        if not (-(2**63) <= first < 2**63 and -(2**63) <= last < 2**63 and -(2**63) <= stride < 2**63):
            raise FrameError("malformed", "an arithmetic column leaves the range of int64")
        return first + np.arange(count, dtype=np.int64) * stride
    if not -(2**63) <= first < 2**63:
        raise FrameError("malformed", "an integer column starts outside the range of int64")
    values = np.empty(count, np.int64)
    values[0] = first
    values[1:] = unshuffle_ints(section.reshape(WORD_BYTES, count - 1)) if count > 1 else 0
    return np.cumsum(values, dtype=np.int64)


def deflate(sections: list[bytes]) -> bytes:
    """The columns of one record as one zstd block that states its inflated size."""
    return zstd.compress(b"".join(sections))


def inflate(body: bytes, expected_bytes: int) -> Bytes8:
    """The columns behind one zstd block, which must inflate to exactly `expected_bytes`."""
    if not body and not expected_bytes:
        return np.empty(0, np.uint8)
    try:
        stated = zstd.stated_size(body)
        if stated != expected_bytes:
            raise FrameError("malformed", f"columns state {stated} bytes and their counts need {expected_bytes}")
        raw = zstd.decompress(body)
    except zstd.ZstdError as error:
        raise FrameError("malformed", f"columns do not inflate: {error}") from error
    if len(raw) != expected_bytes:
        raise FrameError("malformed", "columns end early")
    return np.frombuffer(raw, np.uint8)
