"""Forked children that log: the first thing that one says wakes its own writer, whoever says it."""

import os
from pathlib import Path

import pytest

from tests.e2e.test_ending import points
from tests.e2e.test_signals import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

BEGIN = """
import os, sys, threading
run = stepstream.start_run(spool_interval=sys.argv[1] or None)
run.log({"loss": 1.0}, 0)
assert run._writer.loaded.wait(30)

def in_child(work):
    child = os.fork()
    if not child:
        signal.alarm(30)
        try:
            code = work() or 0
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

def sealers():
    return sum(one.name == "stepstream-sealer" for one in threading.enumerate())
"""

TWO_THREADS = """
from stepstream import lifecycle
meet = threading.Barrier(2)

def flush_at_multiprocessing_exit():
    # Each waits for the other where both have seen that nobody is awake yet.
    try:
        meet.wait(1.0)
    except threading.BrokenBarrierError:
        pass

def log_first_together():
    lifecycle.flush_at_multiprocessing_exit = flush_at_multiprocessing_exit
    threads = [threading.Thread(target=run.log, args=({"loss": 1.0}, step)) for step in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run._writer.loaded.wait(20)
    assert sealers() == 1
    report = run.finish()
    assert (report.points_left, report.points_lost) == (2, 0), report

in_child(log_first_together)
run.finish()
"""


def test_two_threads_of_a_child_that_log_first_together_are_one_writer(tmp_path: Path) -> None:
    """Two would number their frames alike, of which the server takes one for the other sent again."""
    run_script(BEGIN + TWO_THREADS, tmp_path, "")
    assert points(tmp_path) == 3


HANDLERS = """
def interrupted_at(place):
    def log_and_finish():
        for _ in everywhere(lambda: run.log({"loss": 1.0}, 1), lambda: run.log({"loss": 1.0}, 2), first=place):
            break
        report = run.finish()
        assert sealers() == 0
        assert (report.points_left, report.points_lost) == (2, 0), (place, report)
    return log_and_finish

for place in range(1, 150, 3):
    in_child(interrupted_at(place))
run.finish()
"""


@pytest.mark.parametrize("interval", ["", "every call"])
def test_a_handler_may_log_wherever_it_interrupts_what_a_child_logs_first(tmp_path: Path, interval: str) -> None:
    run_script(BEGIN + HANDLERS, tmp_path, interval, STEPSTREAM_FINISH_TIMEOUT="0.01")
    assert points(tmp_path) == 1 + 50 * 2


NO_THREADS = """
def log_without_threads():
    # More than there is room for: what asks for a thread is told that there can be none.
    threading.stack_size(2**47 - 2**20)
    run.log({"loss": 1.0}, 1)
    run.log({"loss": 1.0}, 2)
    threading.stack_size(0)
    assert not run.flush(0.1)
    report = run.finish()
    assert (report.delivered, report.points_left, report.points_lost) == (False, 0, 2), report

in_child(log_without_threads)
run.finish()
"""


@pytest.mark.parametrize("interval", ["", "every call"])
def test_what_a_child_logs_that_gets_no_thread_is_counted_as_lost(tmp_path: Path, interval: str) -> None:
    run_script(BEGIN + NO_THREADS, tmp_path, interval)
    assert points(tmp_path) == 1


FINISHED = """
def finish_and_log():
    assert run.finish().delivered
    run.log({"loss": 1.0}, 1)
    assert run.stats.points_dropped == 1
    assert threading.active_count() == 1

in_child(finish_and_log)
run.finish()
"""


@pytest.mark.parametrize("interval", ["", "every call"])
def test_what_a_child_logs_that_has_finished_is_said_to_come_too_late(tmp_path: Path, interval: str) -> None:
    said = run_script(BEGIN + FINISHED, tmp_path, interval)
    assert "is finished; what is logged after that is dropped" in said
    assert "the buffer" not in said
