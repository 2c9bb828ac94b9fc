from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.write.candidate import Candidate
from stepstream_ingest.write.cursor import Cursor
from stepstream_ingest.write.group import Group, writer_key
from stepstream_schema import limits
from stepstream_schema.records import Start, Status

A, B = "aa" * 16, "bb" * 16


def candidate(seq: int, run_id: str = A, writer: int = 1, row: bytes | None = b"row", **more) -> Candidate:
    return Candidate(
        run_id=run_id, writer=writer, seq=seq, rank=more.pop("rank", None), attempt=0, size=1, points=1, row=row, **more
    )


def fresh(candidates) -> dict:
    return {writer_key(one): Cursor.from_row(0, b"") for one in candidates}


def decide(*candidates: Candidate) -> Group:
    return Group.decide(candidates, fresh(candidates))


def test_each_number_of_a_writer_is_new_once():
    group = decide(candidate(1), candidate(1), candidate(1, writer=2), candidate(1, run_id=B))
    assert group.verdicts == ["new", "duplicate", "new", "new"]
    assert len(group.rows()) == 3


def test_what_is_too_far_ahead_leaves_no_trace():
    far = limits.CURSOR_WINDOW_FRAMES + 2
    group = decide(candidate(far, params=(("lr", "1"),), statuses=(Status(status="FAILED", time_ms=5),)))
    assert group.verdicts == ["ahead"]
    assert (group.rows(), group.params(), group.writer_statuses(), group.runs()) == ([], [], {}, [])


def test_a_refused_frame_consumes_its_number_and_brings_no_row():
    group = decide(candidate(1, row=None), candidate(2))
    assert group.verdicts == ["new", "new"]
    assert len(group.rows()) == 1
    assert group.cursors[UUID(A), 1].mark == 2


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 3), st.integers(1, 8)), max_size=40), st.randoms())
def test_groups_in_any_split_store_what_one_group_stores(sent, random):
    candidates = [candidate(seq, run_id, writer) for run_id, writer, seq in sent]
    cursors = fresh(candidates)
    stored = []
    rest = list(candidates)
    while rest:
        size = random.randint(1, len(rest))
        group = Group.decide(rest[:size], cursors)
        stored += [(one.run_id, one.writer, one.seq) for one in group.new]
        rest = rest[size:]
    assert sorted(stored) == sorted(set(sent))


def test_only_rank_0_or_a_lone_writer_speaks_for_the_run():
    group = decide(
        candidate(1, writer=1, rank=0, statuses=(Status(status="FINISHED", time_ms=9),)),
        candidate(1, writer=2, rank=1, statuses=(Status(status="FAILED", time_ms=8),)),
    )
    assert [status for _, status, *_ in group.run_statuses()] == ["FINISHED"]
    assert {writer: status for (_, writer), (status, _) in group.writer_statuses().items()} == {
        1: "FINISHED",
        2: "FAILED",
    }


def test_the_first_announcement_of_a_run_counts_and_runs_come_in_key_order():
    group = decide(
        candidate(1, run_id=B, start=Start(experiment="e", name="b", time_ms=1)),
        candidate(1, run_id=A, start=Start(experiment="e", name="a", time_ms=1)),
        candidate(1, run_id=A, writer=2, start=Start(experiment="e", name="late", time_ms=2)),
    )
    assert group.runs() == [UUID(A), UUID(B)]
    assert [(run.hex, start.name) for run, start in group.announcements().items()] == [(A, "a"), (B, "b")]


def test_what_needs_a_run_leaves_no_trace_where_the_run_is_closed():
    needs = candidate(1, needs_run=True, params=(("lr", "1"),))
    others = candidate(2, writer=2), candidate(1, run_id=B, needs_run=True)
    group = Group.decide([needs, *others], fresh([needs, *others]), closed={UUID(A)})
    assert group.verdicts == ["closed", "new", "new"]
    assert group.new == list(others)
    assert group.cursors[UUID(A), 1].mark == 0


def test_a_closed_run_needs_no_cursor():
    needs = candidate(1, needs_run=True)
    assert Group.decide([needs], {}, closed={UUID(A)}).verdicts == ["closed"]
