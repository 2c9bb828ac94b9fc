"""Signal handlers that log: they interrupt the training anywhere, also where it is in the middle of logging itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    """What it prints and says."""
    said = os.environ | {
        "STEPSTREAM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "STEPSTREAM_SPOOL_DIR": str(spool),
        "STEPSTREAM_FINISH_TIMEOUT": "0.2",
    }
    command = [sys.executable, "-c", BEGIN + script, *arguments]
    done = subprocess.run(command, env=said | environ, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


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
    # The promise of this mode, to the handler and to whom it interrupts.
    assert run._writer.outbox.unsettled.points == logged, place
assert place > 30
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


FIRST_FILE = """
import os, sys, threading, time
came = threading.Event()
how = []

class Interrupt:
    '''The handler comes while the module that sends files is being loaded, and the main thread wants it.'''

    def find_spec(self, name, path=None, target=None):
        if name == "stepstream.artifacts.carrier":
            signal.raise_signal(signal.SIGUSR1) if main is threading.current_thread() else interrupt_main()

def interrupt_main():
    while not waits.is_set():
        time.sleep(0.001)
    signal.pthread_kill(main.ident, signal.SIGUSR1)
    while not came.is_set():
        time.sleep(0.001)

def handler(*_):
    came.set()
    try:
        uploads.append(run.log_text("why", "handler.txt"))
    except Exception as error:
        how.append(type(error).__name__)

main, waits, uploads = threading.current_thread(), threading.Event(), []
signal.signal(signal.SIGUSR1, handler)
sys.meta_path.insert(0, Interrupt())
if sys.argv[1] == "there are no threads":
    threading.stack_size(2**47 - 2**20)
run = stepstream.start_run()
threading.stack_size(0)
waits.set()
uploads.append(run.log_text("words", "main.txt"))
report = run.finish()
assert came.is_set()
print(*how, sorted(report.artifacts_left))
"""


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("it is loaded beside the training", "['handler.txt', 'main.txt']"),
        ("there are no threads", "ArtifactError ['main.txt']"),
    ],
)
def test_a_handler_may_log_a_file_while_the_first_one_is_logged(tmp_path: Path, who: str, said: str) -> None:
    assert run_script(FIRST_FILE, tmp_path, who).splitlines()[0] == said


SHARED = """
run = stepstream.start_run()
got = []
for place in everywhere(lambda: got.append(run._artifacts()), lambda: got.append(run._artifacts())):
    assert len(set(got)) == 1, place
    run._uploaders.clear()
    got.clear()
run.finish()
"""


def test_a_handler_shares_what_sends_the_files_with_whom_it_interrupts(tmp_path: Path) -> None:
    run_script(SHARED, tmp_path)


DESTRUCTOR = """
import gc, sys, threading

class Cycle:
    def __init__(self):
        self.itself = self

    def __del__(self):
        run.log({"loss": 1.0}, 0)

class Collect:
    '''Rubbish is taken out by whichever thread comes to it.'''

    def find_spec(self, name, path=None, target=None):
        if name == "stepstream.pipeline" and threading.current_thread().name == "stepstream-open":
            assigned.wait(30)
            gc.collect()

assigned = threading.Event()
gc.disable()
Cycle()
sys.meta_path.insert(0, Collect())
run = stepstream.start_run(spool_interval="every call")
assigned.set()
run.log({"loss": 1.0}, 1)
report = run.finish()
assert (report.points_left, report.points_lost) == (2, 0), report
"""


def test_a_destructor_may_log_in_the_thread_that_opens_the_run(tmp_path: Path) -> None:
    run_script(DESTRUCTOR, tmp_path)
