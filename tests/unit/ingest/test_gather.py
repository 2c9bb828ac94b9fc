import itertools
from collections import Counter
from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.compact import backlog
from stepstream_ingest.compact.backlog import Backlog, Group
from stepstream_ingest.compact.gather import Gathering
from stepstream_schema.attempt import Attempt
from stepstream_schema.frame import Frame
from stepstream_schema.points import is_strictly_ordered
from stepstream_schema.records import Matrix, Ragged


def frame(*records) -> Frame:
    return Frame(run_id="ab" * 16, writer=1, seq=1, rank=0, attempt=Attempt(), records=records)


rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=6
)
matrices = st.tuples(st.sampled_from([("a",), ("a", "b"), ("c", "d"), ("d",)]), rows)


@given(
    st.lists(matrices, max_size=6),
    st.lists(st.dictionaries(st.sampled_from("abef"), rows, min_size=1, max_size=3), max_size=4),
)
def test_every_point_is_in_one_block_and_each_key_in_one(dense, sparse):
    gathering = Gathering()
    expected: Counter = Counter()
    for keys, points in dense:
        columns = [np.array(column) for column in zip(*points, strict=True)]
        values = np.tile(columns[2].astype(np.float64), (len(keys), 1))
        gathering.add(frame(Matrix(keys=keys, steps=columns[0], times_ms=columns[1], values=values)))
        expected.update((key, *point) for key in keys for point in points)
    for said in sparse:
        columns = [np.array(column) for column in zip(*itertools.chain(*said.values()), strict=True)]
        record = Ragged(
            keys=tuple(said),
            counts=np.array([len(points) for points in said.values()]),
            steps=columns[0],
            times_ms=columns[1],
            values=columns[2].astype(np.float64),
        )
        gathering.add(frame(record))
        expected.update((key, *point) for key, points in said.items() for point in points)
    blocks = gathering.blocks()
    found = Counter(
        (key, int(step), int(time), float(value))
        for block in blocks
        for key, values in zip(block.keys, block.values, strict=True)
        for step, time, value in zip(block.steps, block.times_ms, values, strict=True)
    )
    assert found == expected
    keys = [key for block in blocks for key in block.keys]
    assert len(keys) == len(set(keys))
    for block in blocks:
        places = list(zip(block.steps.tolist(), block.times_ms.tolist(), strict=True))
        assert places == sorted(places)


def test_frames_of_the_same_keys_become_one_block():
    gathering = Gathering()
    for first in (100, 0, 50):
        steps = np.arange(first, first + 50)
        gathering.add(
            frame(Matrix(keys=("a", "b"), steps=steps, times_ms=steps, values=np.vstack([steps, -steps]) * 1.0))
        )
    (block,) = gathering.blocks()
    assert (block.keys, block.values.shape) == (("a", "b"), (2, 150))
    assert is_strictly_ordered(block.steps, block.times_ms)
    assert block.values[1].tolist() == (-block.steps * 1.0).tolist()


def group(points: int = 0, size: int = 0, age_s: float = 0.0, rank: int = 0) -> Group:
    return Group(run_id=UUID(int=1), rank=rank, attempt=0, frames=1, points=points, bytes=size, age_s=age_s)


def test_what_is_much_or_old_is_due_and_the_largest_comes_first():
    small, large, old = group(10), group(backlog.DUE_POINTS), group(5, age_s=backlog.DUE_AGE_S)
    assert Backlog.of([small, old, large]).due() == [large, old]


def test_many_ranks_that_wait_for_a_full_pass_do_not_hold_everybody_back():
    ranks = [group(1000 + rank, size=2**20, rank=rank) for rank in range(512)]
    due = Backlog.of(ranks).due()
    assert 200 < len(due) < 300
    assert min(one.points for one in due) >= 1255
    assert Backlog.of([]).due() == []
