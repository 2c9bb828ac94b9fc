import math

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stepstream_schema import buckets
from stepstream_schema.buckets import FLOATS, INTS, Buckets
from stepstream_schema.errors import FrameError

numbers = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0])
series = arrays.arrays(np.float64, st.integers(1, 60), elements=numbers)


def each(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(values)) * 3 - 20, np.arange(len(values)) * 10


def one(found: Buckets, place: int) -> dict:
    return {name: int(found.ints[row, place]) for row, name in enumerate(INTS)} | {
        name: float(found.floats[row, place]) for row, name in enumerate(FLOATS)
    }


def same(left: Buckets, right: Buckets) -> None:
    assert np.array_equal(left.ints, right.ints)
    assert np.array_equal(left.floats[:4].view(np.int64), right.floats[:4].view(np.int64))
    np.testing.assert_allclose(left.floats[4], right.floats[4], rtol=1e-9)


@given(series)
def test_a_bucket_says_of_its_points_what_a_loop_would_say(values):
    steps, times = each(values)
    found = one(buckets.of_points(steps, times, values, np.array([0])), 0)
    # Python's floats: NumPy's would warn where a sum of the test's own overflows.
    values = values.tolist()
    finite = [value for value in values if math.isfinite(value)]
    told = [value for value in values if not math.isnan(value)]
    assert (found["first_step"], found["last_step"], found["count"]) == (steps[0], steps[-1], len(values))
    assert (found["nans"], found["pos_infs"], found["neg_infs"]) == (
        sum(map(math.isnan, values)),
        values.count(math.inf),
        values.count(-math.inf),
    )
    if told:
        assert (found["min"], found["max"]) == (min(told), max(told))
        assert values[list(steps).index(found["min_step"])] == min(told)
        assert values[list(steps).index(found["max_step"])] == max(told)
    else:
        assert math.isnan(found["min"])
        assert math.isnan(found["max"])
    if sum(map(abs, finite)) < 1e300:
        assert found["sum"] == pytest.approx(math.fsum(finite), rel=1e-9, abs=1e-9 * sum(map(abs, finite)))


@given(series, st.integers(1, 5))
def test_buckets_of_equal_size_say_what_buckets_of_any_points_say(values, size):
    steps, times = each(values)
    ints, floats = buckets.of_matrix(steps, times, values[None], size)
    alone = buckets.of_points(steps, times, values, np.arange(0, len(values), size))
    assert np.array_equal(ints[0], alone.ints)
    assert np.array_equal(floats[0, :4], alone.floats[:4], equal_nan=True)


@given(series, st.data())
def test_merging_the_buckets_of_parts_equals_the_buckets_of_the_whole(values, data):
    values = np.where(np.abs(values) > 1e300, 1.0, values)
    steps, times = each(values)
    fine = sorted({0, *data.draw(st.lists(st.integers(0, len(values) - 1), max_size=8))})
    coarse = sorted({0, *data.draw(st.lists(st.sampled_from(range(len(fine))), max_size=4))})
    parts = buckets.of_points(steps, times, values, np.array(fine))
    whole = buckets.of_points(steps, times, values, np.array([fine[place] for place in coarse]))
    merged = buckets.merge(parts, np.array(coarse))
    assert np.array_equal(merged.ints[[0, 1, 2, 3, 8, 9, 10, 11]], whole.ints[[0, 1, 2, 3, 8, 9, 10, 11]])
    for row in (2, 3):
        assert np.array_equal(merged.floats[row], whole.floats[row], equal_nan=True)


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=numbers), st.integers(1, 9))
def test_series_that_share_steps_are_summarised_together_as_each_alone(values, size):
    values = np.where(np.abs(values) > 1e300, 1.0, values)
    steps, times = each(values[0])
    ints, floats = buckets.of_matrix(steps, times, values, size)
    for row in range(len(values)):
        alone = buckets.of_points(steps, times, values[row], np.arange(0, len(steps), size))
        assert np.array_equal(ints[row][[0, 1, 2, 3, 8, 9, 10, 11]], alone.ints[[0, 1, 2, 3, 8, 9, 10, 11]])
        assert np.array_equal(floats[row][:4], alone.floats[:4], equal_nan=True)


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=numbers))
def test_encoded_buckets_come_back(values):
    values = np.where(np.abs(values) > 1e300, 1.0, values)
    steps, times = each(values[0])
    ints, floats = buckets.of_matrix(steps, times, values, 4)
    blocks = buckets.encode_many(ints, floats)
    assert len(blocks) == len(values)
    for row, block in enumerate(blocks):
        same(buckets.decode(block), Buckets(ints[row], floats[row]))


@pytest.mark.parametrize("block", [b"", b"no zstd", zstandard.compress(b"x" * 17), zstandard.compress(b"\0" * 2**25)])
def test_what_is_no_block_of_buckets_is_malformed(block):
    with pytest.raises(FrameError):
        buckets.decode(block)


def test_the_mean_is_of_finite_values_alone():
    values = np.array([1.0, math.nan, 3.0, math.inf])
    found = buckets.of_points(np.arange(4), np.arange(4), values, np.array([0, 1]))
    assert found.means[0] == 1.0
    assert found.means[1] == 3.0
    assert math.isnan(buckets.of_points(np.arange(1), np.arange(1), np.array([math.nan]), np.array([0])).means[0])
