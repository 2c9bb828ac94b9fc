import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.read import layers as sight
from stepstream_ingest.read.layers import Chunk, Layer, Piece
from stepstream_schema import buckets
from stepstream_schema.points import Points, canonical


def points(steps, value: float = 0.0) -> Points:
    steps = np.array(list(steps), np.int64)
    return canonical(Points(steps=steps, times_ms=steps * 0, values=np.full(len(steps), value)))


def chunk(number: int, steps) -> Chunk:
    held = points(steps)
    gaps = set(np.diff(held.steps).tolist())
    stride = gaps.pop() if len(gaps) == 1 else 1 if not gaps else 0
    summary = buckets.of_points(held.steps, held.times_ms, held.values, np.array([0]))
    return Chunk(series_id=1, chunk_id=number, stride=stride, summary_only=False, summary=summary)


def found(*layers: Layer) -> list[list]:
    return [
        [piece.chunk.chunk_id if piece.chunk else "loose" for piece in cluster.pieces]
        for cluster in sight.clusters(sight.in_order_of_sight(layers))
    ]


def test_chunks_that_lie_apart_are_each_seen_as_a_whole():
    assert found(Layer(rank=0, attempt=0, chunks=[chunk(1, range(10)), chunk(2, range(10, 20))])) == [[1], [2]]


def test_an_earlier_attempt_is_opened_only_where_a_newer_one_overlaps_it():
    first = Layer(rank=0, attempt=0, chunks=[chunk(1, range(10)), chunk(2, range(10, 20))])
    second = Layer(rank=0, attempt=1, chunks=[chunk(3, range(15, 30))])
    assert found(first, second) == [[1], [2, 3]]


def test_a_rank_whose_steps_a_lower_one_has_is_not_opened_at_all():
    ranks = [
        Layer(
            rank=rank, attempt=0, chunks=[chunk(10 * rank + part, range(part * 10, part * 10 + 10)) for part in (0, 1)]
        )
        for rank in range(4)
    ]
    assert found(*ranks) == [[0], [1]]


def test_steps_that_a_coarser_layer_does_not_have_are_not_hidden_by_it():
    even = Layer(rank=0, attempt=0, chunks=[chunk(1, range(0, 20, 2))])
    every = Layer(rank=1, attempt=0, chunks=[chunk(2, range(20))])
    odd = Layer(rank=2, attempt=0, chunks=[chunk(3, range(1, 19, 2))])
    assert found(even, every) == [[1, 2]]
    assert found(even, odd) == [[1, 3]]
    assert found(every, Layer(rank=2, attempt=0, chunks=[chunk(3, range(4, 12, 4))])) == [[2]]


def test_late_points_open_only_the_chunks_they_fall_into():
    layer = Layer(
        rank=0,
        attempt=0,
        chunks=[chunk(number, range(number * 10, number * 10 + 10)) for number in range(4)],
        loose=points([12, 40, 41]),
    )
    assert found(layer) == [[0], [1, "loose"], [2], [3], ["loose"]]


def test_what_came_by_mlflows_protocol_hides_nothing_of_its_own_rank_and_attempt_and_is_not_hidden():
    logged = Layer(rank=0, attempt=0, chunks=[chunk(1, range(10)), chunk(2, range(10, 20))])
    served = Layer(rank=0, attempt=0, served=True, chunks=[chunk(3, range(10, 20))], loose=points([3]))
    assert found(logged, served) == [[1, "loose"], [2, 3]]
    # Both together hide what comes after them, and are hidden by what comes before them.
    later = Layer(rank=1, attempt=0, chunks=[chunk(4, range(12, 18))])
    newer = Layer(rank=0, attempt=1, chunks=[chunk(5, range(10, 20))])
    assert found(logged, served, later) == [[1, "loose"], [2, 3]]
    assert found(logged, served, newer) == [[1, "loose"], [5]]


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=10), min_size=1, max_size=4))
def test_at_each_step_the_first_layer_that_has_it_is_seen(layers):
    parts = [(number, points(steps, float(number))) for number, steps in enumerate(layers)]
    shown = sight.seen([(Piece(number, (0, 0), (0, 0), None, points, False), points) for number, points in parts])
    expected = [
        (step, float(min(number for number, own in enumerate(layers) if step in own)))
        for step in sorted({step for own in layers for step in own})
        for _ in range(next(own for own in layers if step in own).count(step))
    ]
    assert list(zip(shown.steps.tolist(), shown.values.tolist(), strict=True)) == expected
