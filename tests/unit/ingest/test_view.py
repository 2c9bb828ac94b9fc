import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.read import view
from stepstream_ingest.read.ranks import over_ranks
from stepstream_ingest.read.view import Axis
from stepstream_schema.buckets import Buckets
from stepstream_schema.points import Points


def line(values, first: int = 0) -> Points:
    values = np.array(values, np.float64)
    return Points(steps=np.arange(first, first + len(values)), times_ms=np.arange(len(values)), values=values)


@given(st.integers(1, 3000), st.integers(1, 200), st.data())
def test_a_spike_of_one_step_is_seen_at_every_zoom(count, buckets, data):
    values = np.sin(np.arange(count))
    spike = data.draw(st.integers(0, count - 1))
    start = data.draw(st.integers(0, spike))
    end = data.draw(st.integers(spike, count - 1))
    values[spike] = 1000.0
    window = line(values).take(slice(start, end + 1))
    axis = Axis(start, end, buckets)
    fine = view.of_points(window, Axis(start, end, 10_000))
    for found in (view.of_points(window, axis), view.on_axis([fine], axis)):
        assert len(found) <= buckets
        assert found.float_column("max").max() == 1000.0
        place = int(found.float_column("max").argmax())
        assert found.int_column("max_step")[place] == spike
        assert int(found.int_column("count").sum()) == end - start + 1
        assert spike in view.real_points(found).steps


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30), st.integers(1, 50))
def test_steps_of_any_size_fall_into_buckets_in_order(steps, buckets):
    steps = np.array(sorted(steps), np.int64)
    places = Axis(int(steps[0]), int(steps[-1]), buckets).places(steps)
    assert (np.diff(places) >= 0).all()
    assert places[0] == 0
    assert places.max() < buckets


def test_real_points_are_each_there_once_and_in_order():
    found = view.real_points(view.of_points(line([3.0, 1.0, 2.0, 5.0, 4.0]), Axis(0, 4, 1)))
    assert list(zip(found.steps.tolist(), found.values.tolist(), strict=True)) == [
        (0, 3.0),
        (1, 1.0),
        (3, 5.0),
        (4, 4.0),
    ]


def ranks(*values) -> tuple[Axis, list[tuple[int, Buckets]]]:
    axis = Axis(0, len(values[0]) - 1, len(values[0]))
    return axis, [(rank, view.of_points(line(own), axis)) for rank, own in enumerate(values)]


def test_aggregates_over_ranks_name_the_one_that_strays():
    found = over_ranks(*ranks([1.0, 1.0], [1.1, 1.0], [0.9, 1.0], [1.0, 9.0]))
    assert found.ranks.tolist() == [4, 4]
    np.testing.assert_allclose(found.mean, [1.0, 3.0])
    assert (found.min.tolist(), found.max.tolist()) == ([0.9, 1.0], [1.1, 9.0])
    assert found.percentiles["p50"].tolist() == [1.0, 1.0]
    assert found.outlier_rank[1] == 3
    assert found.outlier_score[1] == np.inf


def test_ranks_that_agree_have_no_outlier_and_two_cannot_have_one():
    assert over_ranks(*ranks([1.0], [1.0], [1.0])).outlier_score.tolist() == [0.0]
    assert over_ranks(*ranks([1.0], [2.0])).outlier_rank.tolist() == [-1]


def test_a_rank_that_is_missing_somewhere_does_not_count_there():
    axis = Axis(0, 1, 2)
    lines = [(0, view.of_points(line([1.0, 2.0]), axis)), (1, view.of_points(line([np.nan], 1), axis))]
    found = over_ranks(axis, lines)
    assert found.ranks.tolist() == [1, 1]
    assert found.mean.tolist() == [1.0, 2.0]
    assert over_ranks(axis, []).ranks.tolist() == []


@given(st.lists(st.sampled_from([1.0, -2.0, np.nan, np.inf, -np.inf]), min_size=1, max_size=60), st.integers(1, 9))
def test_buckets_of_many_points_are_made_in_slices(values, buckets):
    axis = Axis(0, len(values) - 1, buckets)
    with pytest.MonkeyPatch.context() as patch:
        whole = view.of_points(line(values), axis)
        patch.setattr(view, "SLICE", 7)
        sliced = view.of_points(line(values), axis)
    assert np.array_equal(sliced.ints, whole.ints)
    assert np.array_equal(sliced.floats, whole.floats, equal_nan=True)
