import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_schema import chunk
from stepstream_schema.errors import FrameError
from stepstream_schema.points import Points, canonical, in_steps, is_strictly_ordered, joined

int64s = st.integers(-(2**63), 2**63 - 1)
bits = st.integers(0, 2**64 - 1)


def of(rows) -> Points:
    return Points(
        steps=np.array([row[0] for row in rows], np.int64),
        times_ms=np.array([row[1] for row in rows], np.int64),
        values=np.array([row[2] for row in rows], np.uint64).view(np.float64),
    )


def content(points: Points) -> list:
    return list(
        zip(points.steps.tolist(), points.times_ms.tolist(), points.values.view(np.uint64).tolist(), strict=True)
    )


@given(st.lists(st.tuples(int64s, int64s, bits), min_size=1, max_size=50))
def test_every_bit_pattern_comes_back(rows):
    assert content(chunk.decode(chunk.encode(of(rows)))) == rows


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_values_that_are_float32_in_truth_come_back_and_take_half(values):
    points = Points(steps=np.arange(len(values)), times_ms=np.arange(len(values)), values=np.array(values, np.float64))
    body = chunk.encode(points)
    assert content(chunk.decode(body)) == content(points)
    if not np.isnan(points.values).any():  # the payload of a NaN may need all 64 bits
        assert msgpack.unpackb(body)[5] == chunk.FLOAT32


def test_series_that_share_steps_share_their_index_byte_for_byte():
    steps, times = np.arange(100), np.cumsum(np.arange(100) % 7)
    bodies = chunk.encode_values(chunk.encode_index(steps, times), np.random.default_rng(0).normal(size=(3, 100)))
    assert len({chunk.index_bytes(body) for body in bodies}) == 1
    assert [len(chunk.decode(body)) for body in bodies] == [100, 100, 100]
    assert np.array_equal(chunk.decode_values(bodies[1]), chunk.decode(bodies[1]).values)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_malformed(data):
    with pytest.raises(FrameError, match="chunk"):
        chunk.decode(data)


@pytest.mark.parametrize("place", range(7))
def test_a_field_of_the_wrong_kind_is_malformed(place):
    fields = msgpack.unpackb(chunk.encode(of([(1, 2, 3), (4, 5, 6)])))
    fields[place] = "text"
    with pytest.raises(FrameError):
        chunk.decode(msgpack.packb(fields))


def test_a_chunk_of_more_points_than_allowed_is_malformed():
    fields = msgpack.unpackb(chunk.encode(of([(1, 2, 3)])))
    fields[1] = 2**40
    with pytest.raises(FrameError):
        chunk.decode(msgpack.packb(fields))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0, 1 << 63, 0x7FF8 << 48, 0x3FF0 << 48])),
        max_size=30,
    )
)
def test_canonical_order_is_by_step_time_and_value_and_loses_nothing(rows):
    points = of(rows) if rows else joined([])
    found = canonical(points)
    assert sorted(content(found)) == sorted(rows)
    keys = [
        (step, time, not np.isnan(value), 0.0 if np.isnan(value) else value)
        for step, time, value in zip(found.steps, found.times_ms, found.values, strict=True)
    ]
    assert keys == sorted(keys)


def test_strict_order_is_seen_where_differences_would_wrap():
    low, high = -(2**63), 2**63 - 1
    assert is_strictly_ordered(np.array([low, high]), np.array([0, 0]))
    assert not is_strictly_ordered(np.array([high, low]), np.array([0, 0]))
    assert is_strictly_ordered(np.array([1, 1]), np.array([0, 1]))
    assert not is_strictly_ordered(np.array([1, 1]), np.array([1, 1]))


def test_a_window_holds_both_of_its_ends():
    points = of([(step, 0, 0) for step in (-3, -1, -1, 0, 5)])
    assert in_steps(points, -1, 0).steps.tolist() == [-1, -1, 0]
    assert in_steps(points, None, -2).steps.tolist() == [-3]
    assert in_steps(points, 9, None).steps.tolist() == []
    assert in_steps(points, 5, -5).steps.tolist() == []
