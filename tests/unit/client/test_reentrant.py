"""An event that a signal handler may set while its thread sets, clears or waits for it."""

import threading
import time

import pytest

from stepstream.reentrant import Event
from tests import interrupted


@pytest.mark.parametrize("outer", ["set", "clear", "wait"])
@pytest.mark.parametrize("inner", ["set", "clear", "wait"])
@pytest.mark.timeout(60)
def test_each_call_may_interrupt_each_other_at_each_step(outer, inner):
    event = Event()
    calls = {"set": event.set, "clear": event.clear, "wait": lambda: event.wait(0.0001)}
    for _ in interrupted.everywhere(calls[outer], calls[inner], opcodes=True):
        event.set()
        assert event.wait(0)
        event.clear()
        assert not event.wait(0)


@pytest.mark.parametrize("place", range(1, 40, 3))
@pytest.mark.timeout(60)
def test_all_who_wait_go_on_wherever_the_one_who_tells_is_interrupted_by_another(place):
    event, through = Event(), []
    threads = [threading.Thread(target=lambda: through.append(event.wait())) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(event._waiting) < 3:
        time.sleep(0.001)
    told = interrupted.everywhere(event.set, event.set, opcodes=True, first=place)
    next(told)
    for thread in threads:
        thread.join()
    assert through == [True] * 3
    assert not event._waiting
