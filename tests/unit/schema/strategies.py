"""Frames as hypothesis draws them, and what it means that two of them are the same."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from stepstream_schema import limits, records
from stepstream_schema.attempt import MAX_COUNT, Attempt
from stepstream_schema.frame import Frame
from stepstream_schema.records import Dataset, Heartbeat, Matrix, Params, Ragged, Start, Status, Tags

INT64 = st.integers(-(2**63), 2**63 - 1)
STEP_RUNS = st.one_of(
    INT64,
    st.sampled_from([-(2**63), 2**63 - 1, -1, 0, 1]),
    st.integers(0, 100),
)
# Bit patterns rather than floats: every NaN payload and -0.0 is as likely as any other.
BITS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from(
        [0x8000000000000000, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF0000000000001, 0xFFF8DEADBEEF0001]
    ),
)
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
KEYS = TEXT.filter(bool)


def bits_to_floats(bits: list[int]) -> np.ndarray:
    return np.array(bits, np.uint64).view(np.float64)


@st.composite
def int_columns(draw: st.DrawFn, size: int) -> np.ndarray:
    if draw(st.booleans()):
        first, stride = draw(st.integers(-(2**40), 2**40)), draw(st.integers(-1000, 1000))
        return np.arange(size, dtype=np.int64) * stride + first
    return np.array(draw(st.lists(STEP_RUNS, min_size=size, max_size=size)), np.int64)


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    keys = draw(st.lists(KEYS, min_size=1, max_size=5, unique=True))
    count = draw(st.integers(1, 8))
    bits = draw(st.lists(BITS, min_size=count * len(keys), max_size=count * len(keys)))
    return Matrix(
        keys=tuple(keys),
        steps=draw(int_columns(count)),
        times_ms=draw(int_columns(count)),
        values=bits_to_floats(bits).reshape(len(keys), count),
    )


@st.composite
def raggeds(draw: st.DrawFn) -> Ragged:
    keys = draw(st.lists(KEYS, min_size=1, max_size=5, unique=True))
    counts = draw(st.lists(st.integers(1, 4), min_size=len(keys), max_size=len(keys)))
    total = sum(counts)
    return Ragged(
        keys=tuple(keys),
        counts=np.array(counts, np.int64),
        steps=draw(int_columns(total)),
        times_ms=draw(int_columns(total)),
        values=bits_to_floats(draw(st.lists(BITS, min_size=total, max_size=total))),
    )


STARTS = st.builds(
    Start, experiment=KEYS, name=TEXT, time_ms=INT64, user=TEXT, heartbeat_s=st.integers(0, limits.MAX_HEARTBEAT_S)
)
PARAMS = st.builds(Params, items=st.lists(st.tuples(KEYS, TEXT), min_size=1, max_size=4).map(tuple))
TAGS = st.builds(Tags, items=st.lists(st.tuples(KEYS, st.none() | TEXT, INT64), min_size=1, max_size=4).map(tuple))
STATUSES = st.builds(Status, status=st.sampled_from(sorted(records.RUN_STATUSES)), time_ms=INT64)
HEARTBEATS = st.builds(Heartbeat, time_ms=INT64)
DIGESTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=36)
DATASETS = st.builds(
    Dataset,
    name=KEYS,
    digest=DIGESTS,
    source_type=TEXT,
    source=TEXT,
    schema=TEXT,
    profile=TEXT,
    tags=st.lists(st.tuples(KEYS, TEXT), max_size=3).map(tuple),
)
RECORDS = st.one_of(matrices(), raggeds(), STARTS, PARAMS, TAGS, STATUSES, HEARTBEATS, DATASETS)
COUNTS = st.integers(0, MAX_COUNT)
ATTEMPTS = st.builds(Attempt, COUNTS, COUNTS, COUNTS)
FRAMES = st.builds(
    Frame,
    run_id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    writer=st.integers(1, 2**63 - 1),
    seq=st.integers(1, 2**62 - 1),
    rank=st.none() | st.integers(0, 2**31 - 1),
    attempt=ATTEMPTS,
    records=st.lists(RECORDS, max_size=4).map(tuple),
)


def frame(*body: Any, **envelope: Any) -> Frame:
    """A frame of which only the tested part matters."""
    given: dict[str, Any] = {"run_id": "ab" * 16, "writer": 7, "seq": 1, "rank": 0, "attempt": Attempt()}
    return Frame(records=tuple(body), **(given | envelope))


def matrix(keys: int = 2, count: int = 3) -> Matrix:
    """A matrix that counts through its values."""
    return Matrix(
        keys=tuple(f"key{i}" for i in range(keys)),
        steps=np.arange(count, dtype=np.int64),
        times_ms=np.arange(count, dtype=np.int64) + 1_700_000_000_000,
        values=np.arange(keys * count, dtype=np.float64).reshape(keys, count),
    )


def content(frame: Frame) -> dict[str, Any]:
    """A frame as plain values, floats as the hex digits of their bits: equal exactly when the frames are."""
    attempt = frame.attempt
    return {
        "run_id": frame.run_id,
        "writer": frame.writer,
        "seq": frame.seq,
        "rank": frame.rank,
        "attempt": [attempt.scheduler, attempt.elastic, attempt.resume],
        "records": [_record_content(record) for record in frame.records],
    }


def _record_content(record: Any) -> dict[str, Any]:
    fields = {name: _plain(getattr(record, name)) for name in record.__slots__}
    return {"kind": type(record).__name__, **fields}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        bits = np.ascontiguousarray(value).view(np.uint64)
        return [f"{bit:016x}" for bit in bits.ravel().tolist()] if bits.ndim == 1 else [_plain(row) for row in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value
