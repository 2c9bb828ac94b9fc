import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.read.points import Points, in_steps, joined, lowest_rank_newest_attempt
from stepstream_ingest.read.thin import thin


def series(values: list[float], steps: list[int] | None = None, ranks=0, attempts=0) -> Points:
    count = len(values)
    return Points(
        steps=np.array(range(count) if steps is None else steps, np.int64),
        times_ms=np.zeros(count, np.int64),
        values=np.array(values, np.float64),
        ranks=np.zeros(count, np.int64) + ranks,
        attempts=np.zeros(count, np.int64) + attempts,
    )


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=500), st.integers(1, 100), st.data())
def test_a_spike_of_one_step_is_seen_at_every_zoom(values, most, data):
    place = data.draw(st.integers(0, len(values) - 1))
    values[place] = 1e6
    shown = thin(series(values), most)
    assert place in shown.steps.tolist()
    assert {0, len(values) - 1} <= set(shown.steps.tolist())
    assert len(shown) <= max(most, 4) + 2
    assert shown.steps.tolist() == sorted(set(shown.steps.tolist()))
    np.testing.assert_equal(shown.values, np.array(values)[shown.steps])


def test_few_points_are_left_as_they_are():
    points = series([1.0, 2.0, 3.0])
    assert thin(points, 3) is points


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(-1, 2), st.integers(0, 2), st.floats(-1, 1)), min_size=0, max_size=40
    )
)
def test_each_step_shows_its_lowest_ranks_newest_attempt(logged):
    parts = [series([value], [step], rank, attempt) for step, rank, attempt, value in logged]
    shown = lowest_rank_newest_attempt(joined(parts))
    expected = []
    for step in sorted({one[0] for one in logged}):
        here = [one for one in logged if one[0] == step]
        rank = min(one[1] for one in here)
        attempt = max(one[2] for one in here if one[1] == rank)
        expected += [(step, one[3]) for one in here if one[1:3] == (rank, attempt)]
    assert sorted(zip(shown.steps.tolist(), shown.values.tolist(), strict=True)) == sorted(expected)


def test_a_range_of_steps_includes_both_ends_and_may_be_empty():
    points = series([0.0, 1.0, 2.0, 3.0])
    assert in_steps(points, 1, 2).values.tolist() == [1.0, 2.0]
    assert len(in_steps(points, 3, 1)) == 0
    assert len(in_steps(points, None, None)) == 4
