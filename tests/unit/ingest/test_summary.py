import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.write.summary import EMPTY, summarise
from stepstream_schema.records import Matrix, Ragged

values = st.sampled_from([1.0, 2.0, -3.0, math.nan, math.inf, -math.inf, 0.5])
points = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2), values), min_size=1, max_size=12)
series = st.dictionaries(st.sampled_from("abcd"), points, min_size=1, max_size=4)


def ragged(by_key: dict) -> Ragged:
    flat = [point for own in by_key.values() for point in own]
    return Ragged(
        keys=tuple(by_key),
        counts=np.array([len(own) for own in by_key.values()], np.int64),
        steps=np.array([point[0] for point in flat], np.int64),
        times_ms=np.array([point[1] for point in flat], np.int64),
        values=np.array([point[2] for point in flat], np.float64),
    )


def reference(own: list) -> tuple:
    """(count, last step, last time, last, min, max), in plain Python."""
    numbers = [value for _, _, value in own if not math.isnan(value)] or [math.nan]
    last = max(own, key=lambda point: (point[0], point[1], -math.inf if math.isnan(point[2]) else point[2]))
    ties = [p for p in own if p[:2] == last[:2]]
    return (
        len(own),
        last[0],
        last[1],
        {repr(p[2]) for p in ties if rank(p[2]) == rank(last[2])},
        min(numbers),
        max(numbers),
    )


def rank(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def check(summary, by_key: dict) -> None:
    assert set(summary.keys) == set(by_key)
    for place, key in enumerate(summary.keys):
        count, step, time, lasts, low, high = reference(by_key[key])
        assert (summary.counts[place], summary.last_steps[place], summary.last_times_ms[place]) == (count, step, time)
        assert repr(float(summary.lasts[place])) in lasts
        np.testing.assert_equal([summary.mins[place], summary.maxs[place]], [low, high])


@given(series)
def test_a_ragged_record_is_summarised_as_plain_python_does(by_key):
    check(summarise([ragged(by_key)]), by_key)


@given(series, series)
def test_the_summary_of_parts_is_that_of_the_whole(one, two):
    whole = {key: one.get(key, []) + two.get(key, []) for key in one | two}
    check(summarise([ragged(one), ragged(two)]), whole)


@given(points, st.integers(1, 4))
def test_a_matrix_is_summarised_as_plain_python_does(own, keys):
    matrix = Matrix(
        keys=tuple("abcd"[:keys]),
        steps=np.array([point[0] for point in own], np.int64),
        times_ms=np.array([point[1] for point in own], np.int64),
        values=np.array([[point[2] for point in own]] * keys, np.float64),
    )
    check(summarise([matrix]), dict.fromkeys("abcd"[:keys], own))


def test_a_frame_without_metrics_has_an_empty_summary():
    assert summarise([]) is EMPTY
