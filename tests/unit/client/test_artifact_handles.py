"""What one uploader was given, by how it stands."""

import sys

from stepstream.artifacts import handles
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.handles import Handles
from stepstream.artifacts.memory import Memory


def done(made: Handles, *errors: str | None) -> Upload:
    handle = Upload("x", len(errors))
    made.add(handle)
    for error in errors:
        if handle.settle(error):
            made.ended(handle)
    return handle


def test_what_is_stored_is_not_kept_and_counts_on():
    made = Handles()
    handle = Upload("a", 1)
    made.add(handle)
    handle.bytes_sent, handle.bytes_total = 5, 7
    assert not made.wait(0)
    assert (made.bytes_sent, made.bytes_total, made.moved) == (5, 7, 0)
    handle.settle()
    made.ended(handle)
    assert made.wait(0)
    assert (made.bytes_sent, made.bytes_total, made.moved) == (5, 7, 1)
    assert made.are_stored
    assert made.failed() == ()
    assert sys.getrefcount(handle) == 2


def test_what_was_refused_is_done_at_once_and_one_failure_is_never_forgotten():
    made = Handles()
    made.add(Upload("a", 0, refused=("a is refused",)))
    assert made.wait(0)
    done(made, None)
    assert not made.are_stored
    assert made.failed() == ("a is refused",)


def test_reasons_of_what_is_under_way_are_told_too():
    made = Handles()
    handle = Upload("tree", 2)
    made.add(handle)
    handle.settle("one is gone")
    assert made.failed() == ("one is gone",)
    handle.settle()
    made.ended(handle)
    assert made.failed() == ("one is gone",)
    assert not made.are_stored


def test_of_very_many_failures_all_are_counted_and_some_are_told(monkeypatch):
    monkeypatch.setattr(handles, "MAX_REASONS", 3)
    made = Handles()
    done(made, "a", "b")
    done(made, "c", "d")
    done(made, "e")
    assert made.failed() == ("a", "b", "c", "and 2 more, of which the reasons are not kept")
    assert made.failures == 5


def test_memory_is_bounded_and_free_again_when_what_it_held_is_done():
    memory = Memory(10)
    first, second = Upload("a", 1), Upload("b", 1)
    assert memory.take(first, 8)
    assert not memory.take(second, 3)
    memory.ended(second)
    memory.ended(first)
    assert memory.held == 0
    assert memory.take(second, 10)
