"""Signal handlers that log: they interrupt the training anywhere, also where it is in the middle of logging itself."""

import os
import subprocess
import sys
from pathlib import Path

from tests.servers import free_port

BEGIN = """
import faulthandler, signal, stepstream
from tests.interrupted import everywhere

# What hangs says where, and ends.
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(60)
"""
ROOT = Path(__file__).parents[2]


def run_script(script: str, spool: Path, *arguments: str, **environ: str) -> str:
    """What it prints."""
    said = os.environ | {
        "STEPSTREAM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "STEPSTREAM_SPOOL_DIR": str(spool),
        "STEPSTREAM_FINISH_TIMEOUT": "0.2",
    }
    command = [sys.executable, "-c", BEGIN + script, *arguments]
    done = subprocess.run(command, env=said | environ, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_EVERY_CALL = """
run = stepstream.start_run(spool_interval="every call")
run.log({"loss": 1.0}, 0)
assert run._writer.loaded.wait(30)
logged = 1

def log(key):
    global logged
    logged += 1
    run.log({key: 1.0}, logged)

for place in everywhere(lambda: log("loss"), lambda: log("from the handler")):
    assert logged == 1 + 2 * place
    # The promise of this mode, to the handler and to whom it interrupts.
    assert run._writer.outbox.unsettled.points == logged, place
assert place > 100
report = run.finish()
assert (report.points_left, report.points_lost) == (logged, 0)
"""


def test_a_handler_may_log_wherever_it_interrupts_a_call_that_writes_at_once(tmp_path: Path) -> None:
    run_script(IN_EVERY_CALL, tmp_path)


WAKING = """
run = stepstream.start_run(buffer_bytes=2**16)
assert run._writer.loaded.wait(30)
logged = 0

def log(rows):
    global logged
    for _ in range(rows):
        logged += 1
        run.log({"loss": 1.0}, logged)

def handler():
    # The sealer has slept through what was logged before: it is told by both.
    run._writer._pipeline.sealer._wake.clear()
    run._writer._wake()
    log(1)

for place in everywhere(lambda: run._writer._wake(), handler):
    run._writer._pipeline.sealer._wake.clear()
log(40)
report = run.finish()
assert (report.points_left, report.points_lost) == (logged, 0)
"""


def test_a_handler_may_wake_the_thread_that_writes_while_it_is_woken(tmp_path: Path) -> None:
    run_script(WAKING, tmp_path)
