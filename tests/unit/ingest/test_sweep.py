"""Clusters opened a few pieces at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.errors import ApiError
from stepstream_ingest.read import layers as sight
from stepstream_ingest.read import sweep
from stepstream_ingest.read.layers import Chunk, Layer
from stepstream_ingest.read.sweep import Sweep
from stepstream_schema import buckets
from stepstream_schema import points as ordered
from stepstream_schema.points import Points

Row = tuple[int, int, float]


def points(rows: list[Row]) -> Points:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    steps, times, values = columns
    return ordered.canonical(
        Points(steps=np.array(steps, np.int64), times_ms=np.array(times, np.int64), values=np.array(values, np.float64))
    )


def rows(found: Points) -> list[Row]:
    return list(zip(found.steps.tolist(), found.times_ms.tolist(), found.values.tolist(), strict=True))


class Store:
    """Layers, and the bodies of their chunks."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.bodies: dict[int, Points] = {}

    def add(self, rank: int, attempt: int, served: bool, held: list[list[Row]], loose: list[Row]) -> None:
        chunks = sorted(
            (self._chunk(points(one)) for one in held if one), key=lambda one: one.summary.ints[:2, 0].tolist()
        )
        late = ordered.distinct(points(loose)) if served else points(loose)
        self.layers.append(Layer(rank=rank, attempt=attempt, served=served, chunks=chunks, loose=late))

    def _chunk(self, body: Points) -> Chunk:
        number = len(self.bodies)
        self.bodies[number] = body
        gaps = set(np.diff(body.steps).tolist())
        stride = 1 if not gaps else gaps.pop() if len(gaps) == 1 and min(gaps) > 0 else 0
        summary = buckets.of_points(body.steps, body.times_ms, body.values, np.array([0]))
        return Chunk(series_id=1, chunk_id=number, stride=stride, summary_only=False, summary=summary)

    def clusters(self) -> list[sight.Cluster]:
        return sight.clusters(sight.in_order_of_sight(self.layers))


def swept(store: Store, most: int) -> list[tuple[int, Points]]:
    """What comes out, cluster by cluster."""
    begun, found = Sweep(), []
    for batch in sweep.batches(store.clusters(), most):
        assert sum(len(share.pieces) for share in batch) <= most
        for share in batch:
            bodies = [store.bodies[one.chunk.chunk_id] if one.chunk else one.loose for one in share.pieces]
            found.append((share.place, begun.decided(share, bodies)))
    return found


@st.composite
def stores(draw) -> Store:
    row = st.tuples(st.integers(0, 9), st.integers(0, 2), st.sampled_from([1.0, 2.0]))
    some = st.lists(row, max_size=6)
    store = Store()
    for rank, attempt in draw(st.sets(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1)):
        for served in draw(st.sampled_from([(False,), (True,), (False, True)])):
            held = draw(st.lists(some, max_size=4))
            if served:
                # Compaction writes each of them once.
                new = ordered.distinct(points([one for several in held for one in several]))
                held = [rows(new)[start : start + 3] for start in range(0, len(new), 3)]
            store.add(rank, attempt, served, held, draw(some))
    return store


@given(stores(), st.integers(1, 5))
def test_what_is_seen_does_not_depend_on_how_much_is_opened_at_once(store, most):
    expected: dict[int, list[Row]] = {}
    for level in sorted({(layer.rank, -layer.attempt) for layer in store.layers}):
        own: list[Row] = []
        for layer in store.layers:
            if (layer.rank, -layer.attempt) == level:
                held = [row for one in layer.chunks for row in rows(store.bodies[one.chunk_id])] + rows(layer.loose)
                own += sorted(set(held)) if layer.served else held
        taken = set(expected)
        for row in own:
            if row[0] not in taken:
                expected.setdefault(row[0], []).append(row)
    whole = [row for _, part in swept(store, most) for row in rows(part)]
    assert [row[:2] for row in whole] == [row[:2] for step in sorted(expected) for row in sorted(expected[step])]
    assert sorted(whole) == sorted(row for several in expected.values() for row in several)


def test_of_series_that_overlap_from_end_to_end_little_is_held():
    store = Store()
    for rank, first in ((0, 0), (1, 5)):
        # Every seventh step is missing somewhere else: no rank is known to hide the other.
        steps = [step for step in range(first, 2000) if step % 7 != rank]
        store.add(
            rank, 0, False, [[(step, 0, float(rank)) for step in steps[at : at + 10]] for at in range(0, 1700, 10)], []
        )
    (cluster,) = [one for one in store.clusters() if len(one.pieces) > 1]
    assert len(cluster.pieces) > 300
    assert most_held(store, 8) <= 40


def most_held(store: Store, most: int) -> int:
    begun, held = Sweep(), 0
    for batch in sweep.batches(store.clusters(), most):
        for share in batch:
            begun.decided(share, [store.bodies[one.chunk.chunk_id] for one in share.pieces if one.chunk])
            held = max(held, sum(len(part) for _, part in begun._held))
    return held


def test_of_many_ranks_at_the_same_uneven_steps_one_is_held():
    store = Store()
    for rank in range(50):
        store.add(rank, 0, False, [[(step * step, 0, float(rank)) for step in range(10)]], [])
    assert most_held(store, 4) == 10
    assert {row[2] for _, part in swept(store, 4) for row in rows(part)} == {0.0}


def test_ranks_that_lie_among_one_another_and_are_too_much_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(sweep, "MAX_HELD_POINTS", 50)
    store = Store()
    for rank in range(10):
        store.add(rank, 0, False, [[(20 * step * step + rank, 0, 1.0) for step in range(10)]], [])
    with pytest.raises(ApiError, match="rank, attempt"):
        swept(store, 4)
    # One rank alone may have any number at one step.
    store = Store()
    store.add(0, 0, False, [[(3, time, 1.0) for time in range(at, at + 10)] for at in range(0, 60, 10)], [])
    assert sum(len(part) for _, part in swept(store, 4)) == 60
