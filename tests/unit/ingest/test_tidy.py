import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.compact import tidy
from stepstream_ingest.compact.tidy import Bounds
from stepstream_schema import chunk
from stepstream_schema.points import Points, canonical


def points(*steps: int) -> Points:
    return Points(steps=np.array(steps), times_ms=np.zeros(len(steps), np.int64), values=np.array(steps, np.float64))


def bounds(number: int, first: int, last: int, count: int = chunk.MAX_POINTS) -> Bounds:
    return Bounds(chunk_id=number, first=(first, 0), last=(last, 0), points=count)


def ids(merges) -> list[list[int]]:
    return [[one.chunk_id for one in merge.chunks] for merge in merges]


def test_full_chunks_in_order_are_tidy():
    assert tidy.plan([bounds(1, 0, 9), bounds(2, 10, 19), bounds(3, 20, 29)]) == []


def test_small_neighbours_are_merged_as_far_as_one_chunk_holds_them():
    small = [bounds(number, number * 10, number * 10 + 9, 3000) for number in range(5)]
    assert ids(tidy.plan(small)) == [[0, 1], [2, 3]]


def test_a_small_chunk_is_not_merged_into_a_full_one():
    assert tidy.plan([bounds(1, 0, 9), bounds(2, 10, 19, 5)]) == []


def test_chunks_that_overlap_are_merged_whatever_their_size():
    assert ids(tidy.plan([bounds(1, 0, 9), bounds(2, 5, 14), bounds(3, 20, 29)])) == [[1, 2]]


def test_chunks_that_meet_at_one_place_do_not_overlap():
    assert tidy.plan([bounds(1, 0, 0), bounds(2, 0, 0), bounds(3, 0, 5)]) == []


def test_more_chunks_than_are_opened_at_once_are_merged_from_the_left():
    wide = [bounds(0, 0, 10_000), *(bounds(number, number * 10, number * 10 + 9) for number in range(1, 100))]
    (merge,) = tidy.plan(wide)
    assert len(merge.chunks) == tidy.MAX_CHUNKS
    assert merge.before == (tidy.MAX_CHUNKS * 10, 0)


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=20), min_size=1, max_size=5), st.integers(0, 50))
def test_merging_keeps_every_point_and_parts_them_at_the_next_chunk(parts, edge):
    done, rest = tidy.merged([points(*sorted(part)) for part in parts], (edge, 0))
    whole = canonical(points(*(step for part in parts for step in part)))
    assert [step for piece in done + rest for step in piece.steps] == whole.steps.tolist()
    assert all(step < edge for piece in done for step in piece.steps)
    assert all(step >= edge for piece in rest for step in piece.steps)
    assert tidy.merged([whole], None)[1] == []


def test_pieces_are_of_equal_length_and_fit():
    done, _ = tidy.merged([points(*range(20_000))], None)
    assert [len(piece) for piece in done] == [6666, 6667, 6667]
