import threading

from stepstream.buffer import (
    MAX_DEFERRED_VALUES,
    NOTE_RESERVE_BYTES,
    ROW_BYTES,
    STATUS_RESERVE_BYTES,
    VALUE_BYTES,
    Buffer,
    Note,
)
from stepstream.values import Deferred


class Scalar:
    """A device scalar that is ready when it is told to be."""

    def __init__(self, number: float, *, ready: bool = False) -> None:
        self.number = number
        self.now = ready

    def is_ready(self) -> bool:
        return self.now

    def item(self) -> float:
        return self.number


def buffer(max_bytes: int = 2**20, wake_bytes: int = 2**18, wake=lambda: None) -> Buffer:
    return Buffer(max_bytes, wake_bytes, wake)


def log_fast(buffer: Buffer, values: dict[str, float], step: int) -> bool:
    """What Run.log does; False where it would take the slow way."""
    if len(buffer.rows) < buffer.fast_rows and len(values) <= buffer.fast_values:
        buffer.rows.append((step, 0, values))
        return True
    return False


def test_what_was_pushed_is_in_exactly_one_batch_in_order():
    held = buffer()
    for step in range(5):
        assert held.push({"a": float(step)}, step)
    first = held.drain()
    assert held.push({"a": 9.0}, 9)
    second = held.drain()
    assert [row[0] for row in first.rows] == [0, 1, 2, 3, 4]
    assert [row[0] for row in second.rows] == [9]
    assert held.drain().rows == []


def test_calls_without_a_step_are_counted_from_0():
    held = buffer()
    for _ in range(3):
        held.push({"a": 1.0}, None)
    assert [row[0] for row in held.drain().rows] == [0, 1, 2]
    held.push({"a": 1.0}, None)
    assert held.drain().rows[0][0] == 3


def test_a_full_buffer_refuses_and_takes_again_after_a_drain():
    row_bytes = ROW_BYTES + VALUE_BYTES
    held = buffer(max_bytes=10 * row_bytes, wake_bytes=0)
    taken = [held.push({"a": 1.0}, step) for step in range(12)]
    assert taken == [True] * 10 + [False] * 2
    assert len(held.drain().rows) == 10
    assert held.push({"a": 1.0}, 0)


def test_the_fast_way_opens_for_rows_as_wide_as_those_that_were_seen():
    held = buffer()
    held.allow_fast()
    assert not log_fast(held, {"a": 1.0}, 0)
    held.push({"a": 1.0, "b": 2.0}, 0)
    assert log_fast(held, {"a": 1.0, "b": 2.0}, 1)
    assert not log_fast(held, {"a": 1.0, "b": 2.0, "c": 3.0}, 2)


def test_both_ways_together_stay_below_the_bound():
    for width in (1, 10, 100):
        held = buffer(max_bytes=2**20, wake_bytes=2**18)
        held.allow_fast()
        row = {f"k{n}": 1.0 for n in range(width)}
        rows = 0
        while log_fast(held, row, rows) or held.push(row, rows):
            rows += 1
        assert rows * (ROW_BYTES + VALUE_BYTES * width) <= 2**20
        assert rows == len(held.drain().rows)


def test_a_very_wide_row_leaves_the_fast_way_to_narrow_ones():
    held = buffer(wake_bytes=2**18)
    held.allow_fast()
    held.push({"a": 1.0}, 0)
    before = held.fast_rows
    held.push({f"k{n}": 1.0 for n in range(2000)}, 1)
    assert (held.fast_rows, held.fast_values) == (before, 1)


def test_where_tensors_come_no_row_may_be_added_up_to_learn_its_types():
    held = buffer()
    held.allow_fast()
    held.push({"a": 1.0}, 0)
    assert (held.fast_rows > 0, held.fast_values) == (True, 1)
    held.deny_fast()
    held.push({"a": 1.0}, 1)
    assert (held.fast_rows, held.fast_values) == (0, 0)


def test_the_sealer_is_woken_once_there_is_a_frame_full():
    woken = []
    held = buffer(max_bytes=2**20, wake_bytes=2**12, wake=lambda: woken.append(1))
    while not woken:
        assert held.push({"a": 1.0}, 0)
    assert len(held.rows) == 2**12 // (ROW_BYTES + VALUE_BYTES) + 1


def test_a_row_whose_device_is_late_waits_for_a_later_batch():
    held = buffer()
    scalar = Scalar(4.0)
    held.push_deferred({"loss": Deferred(scalar), "lr": 0.1}, 7)
    assert held.drain().deferred == []
    assert held.points == 2
    scalar.now = True
    (step, _, values) = held.drain().deferred[0]
    assert (step, values["loss"].resolve(), values["lr"]) == (7, 4.0, 0.1)
    assert held.points == 0


def test_values_whose_device_is_given_up_are_forgotten_alone():
    held = buffer()
    held.push_deferred({"late": Deferred(Scalar(4.0)), "lr": 0.1, "ready": Deferred(Scalar(5.0, ready=True))}, 7)
    held.push_deferred({"late": Deferred(Scalar(4.0))}, 8)
    assert held.give_up_late() == 2
    ((step, _, values),) = held.drain().deferred
    assert (step, values["lr"], values["ready"].resolve()) == (7, 0.1, 5.0)
    assert held.give_up_late() == 0


def test_device_scalars_have_a_budget_of_their_own():
    held = buffer(max_bytes=2**30)
    late = {f"k{n}": Deferred(Scalar(0.0)) for n in range(MAX_DEFERRED_VALUES)}
    assert held.push_deferred(late, 0)
    assert not held.push_deferred({"one": Deferred(Scalar(0.0))}, 1)
    assert held.push({"plain": 1.0}, 1)
    held.drain()
    # They came back to wait, and so did their claim.
    assert not held.push_deferred({"one": Deferred(Scalar(0.0))}, 2)


def test_a_row_of_more_device_scalars_than_may_wait_is_taken_where_none_waits():
    held = buffer(max_bytes=2**30)
    wide = {f"k{n}": Deferred(Scalar(0.0, ready=True)) for n in range(MAX_DEFERRED_VALUES + 1)}
    assert held.push_deferred(wide, 0)
    assert not held.push_deferred({"one": Deferred(Scalar(0.0))}, 1)
    assert len(held.drain().deferred[0][2]) == MAX_DEFERRED_VALUES + 1
    assert held.push_deferred({"one": Deferred(Scalar(0.0))}, 1)


def test_device_scalars_wake_the_sealer_once_when_a_quarter_of_them_waits():
    woken: list[None] = []
    held = buffer(max_bytes=2**30, wake_bytes=2**29, wake=lambda: woken.append(None))
    row = {f"k{n}": Deferred(Scalar(0.0)) for n in range(MAX_DEFERRED_VALUES // 8)}
    counts = []
    for step in range(6):
        assert held.push_deferred(dict(row), step)
        counts.append(len(woken))
    assert counts == [0, 1, 1, 1, 1, 1]


def test_a_note_is_never_older_than_one_of_its_kind_before_it_though_the_clock_is_set_back():
    held = buffer()
    for kind, time_ms in (("tag", 7_200_000), ("tag", 5), ("status", 6), ("tag", 7_200_001)):
        assert held.push_note(Note(kind, "k", "FINISHED", time_ms))
    assert [note.time_ms for note in held.drain().notes] == [7_200_000, 7_200_000, 6, 7_200_001]


def test_a_buffer_full_of_points_takes_notes_and_one_full_of_notes_a_status():
    held = buffer(max_bytes=2**16, wake_bytes=0)
    while held.push({"a": 1.0}, 0):
        pass
    notes = 0
    while held.push_note(Note("tag", f"t{notes}", "x" * 100, 0)):
        notes += 1
    assert notes > 100
    assert held.push_note(Note("status", "", "FINISHED", 0))
    statuses = 1
    while held.push_note(Note("status", "", "RUNNING", 0)):
        statuses += 1
    assert notes * (ROW_BYTES + 100) + statuses * ROW_BYTES < NOTE_RESERVE_BYTES + STATUS_RESERVE_BYTES + ROW_BYTES
    assert not held.push({"a": 1.0}, 0)


def test_a_closed_buffer_takes_nothing():
    held = buffer()
    held.allow_fast()
    held.push({"a": 1.0}, 0)
    held.close()
    assert not log_fast(held, {"a": 1.0}, 1)
    assert not held.push({"a": 1.0}, 1)
    assert not held.push_note(Note("param", "a", "b", 0))
    assert not held.push_deferred({"a": Deferred(Scalar(0.0))}, 1)


def test_threads_that_push_while_another_drains_lose_nothing():
    held = buffer(max_bytes=2**28, wake_bytes=2**20)
    held.allow_fast()
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def push(thread: int) -> None:
        for step in range(5000):
            row = {"t": float(thread)}
            assert log_fast(held, row, step) or held.push(row, step)

    def drain() -> None:
        while not stop.is_set():
            seen.extend((int(row[2]["t"]), row[0]) for row in held.drain().rows)

    drainer = threading.Thread(target=drain)
    pushers = [threading.Thread(target=push, args=(n,)) for n in range(4)]
    drainer.start()
    for thread in pushers:
        thread.start()
    for thread in pushers:
        thread.join()
    stop.set()
    drainer.join()
    seen += [(int(row[2]["t"]), row[0]) for row in held.drain().rows]
    assert sorted(seen) == [(thread, step) for thread in range(4) for step in range(5000)]
