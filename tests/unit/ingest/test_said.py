"""Points of a request, as the record that is stored."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.write.said import Said, record_of, row_of
from stepstream_schema.records import Matrix, Ragged

POINT = st.tuples(st.sampled_from("abc"), st.integers(-3, 3), st.integers(0, 3), st.floats(-2, 2))


def said(points) -> Said:
    keys, steps, times, values = zip(*points, strict=True)
    return Said(keys=list(keys), steps=list(steps), times_ms=list(times), values=np.array(values))


def told(record) -> list:
    """The points of a record, each key's in its order."""
    if isinstance(record, Matrix):
        return [
            (key, step, time, value)
            for key, own in zip(record.keys, record.values.tolist(), strict=True)
            for step, time, value in zip(record.steps.tolist(), record.times_ms.tolist(), own, strict=True)
        ]
    keys = np.repeat(record.keys, record.counts).tolist()
    return list(zip(keys, record.steps.tolist(), record.times_ms.tolist(), record.values.tolist(), strict=True))


@given(st.lists(POINT, min_size=1, max_size=30))
def test_every_point_is_in_the_record_and_each_key_keeps_its_order(points):
    record = record_of(said(points))
    assert Counter(told(record)) == Counter(points)
    for key in record.keys:
        assert [one for one in told(record) if one[0] == key] == [one for one in points if one[0] == key]


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 9)), min_size=1, max_size=8), st.booleans())
def test_rows_of_the_same_keys_are_a_matrix_where_they_share_steps_and_times(rows, jitter):
    points = [
        (key, step, time + (place if jitter else 0), place / 7)
        for step, time in rows
        for place, key in enumerate("zxy")
    ]
    record = record_of(said(points))
    assert isinstance(record, Ragged if jitter else Matrix)
    assert record.keys == ("z", "x", "y")
    assert Counter(told(record)) == Counter(points)


def test_no_points_are_no_record():
    assert record_of(Said(keys=[], steps=[], times_ms=[], values=np.empty(0))) is None


@pytest.mark.parametrize("apart", [0, 1])
def test_the_largest_numbers_survive(apart):
    low, high = -(2**63), 2**63 - 1
    points = [("a", low, high, 0.5), ("b", low, high - apart, 1.5), ("a", high, 0, 2.5), ("b", high, 0, 3.5)]
    record = record_of(said(points))
    assert isinstance(record, Ragged if apart else Matrix)
    assert Counter(told(record)) == Counter(points)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_keys_come_in_rows_if_they_are_the_distinct_ones_again_and_again(keys):
    distinct = list(dict.fromkeys(keys))
    repeated = any(keys == distinct * times for times in range(1, len(keys) + 1))
    assert row_of(keys) == (tuple(distinct) if repeated else None)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4, unique=True), st.integers(1, 5))
def test_rows_are_recognised(keys, times):
    assert row_of(keys * times) == tuple(keys)
