"""The process whose children the workers are."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stepstream_ingest.artifacts.stores import root
from stepstream_ingest.worker_config import WorkerConfig
from tests.integration.test_server_process import is_alive
from tests.servers import ServerProcess

BROKEN = """
import os, sys, time
from stepstream_ingest import worker, workers
def run(config, listener, on_ready):
    if config.worker == 0:
        on_ready()
        time.sleep(600)
    {break_}
worker.run = run
sys.exit(workers.main())
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_is_replaced_with_its_workers_when_it_is_killed(server_factory: Callable[..., ServerProcess]) -> None:
    server = server_factory("--workers", "2")
    until(lambda: len(server.workers()) == 2)
    parent = server.workers_parent()
    assert parent is not None
    before = server.workers()
    parent.kill()
    until(lambda: not any(is_alive(pid) for pid in before) and len(server.workers()) == 2 and server.answers())
    assert set(before).isdisjoint(server.workers())
    assert server.stop() == 0


def test_what_a_killed_worker_had_admitted_is_not_shown_as_waiting_for_ever(
    server_factory: Callable[..., ServerProcess],
) -> None:
    server = server_factory("--workers", "2")
    until(lambda: len(server.workers()) == 2)
    parent = server.workers_parent()
    assert parent is not None
    shared = Path(parent.environ()["PROMETHEUS_MULTIPROC_DIR"])
    killed, other = server.workers()
    until(lambda: all((shared / f"gauge_livesum_{pid}.db").exists() for pid in (killed, other)))
    os.kill(killed, signal.SIGKILL)
    until(lambda: not (shared / f"gauge_livesum_{killed}.db").exists())
    assert (shared / f"gauge_livesum_{other}.db").exists()
    # What it had counted stays: counters must not go back.
    assert (shared / f"counter_{killed}.db").exists()
    # Nor where nobody is left who could say that they have ended.
    until(lambda: len(server.workers()) == 2)
    before = [*server.workers(), parent.pid]
    for pid in reversed(before):
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(server.workers()) == 2 and server.answers())
    assert not any((shared / f"gauge_livesum_{pid}.db").exists() for pid in before)


def test_it_has_one_thread_as_one_who_forks_must(server_factory: Callable[..., ServerProcess]) -> None:
    server = server_factory("--workers", "1")
    parent = server.workers_parent()
    assert parent is not None
    assert parent.num_threads() == 1


def test_a_worker_that_is_stuck_is_killed_after_the_time_to_drain(
    server_factory: Callable[..., ServerProcess],
) -> None:
    server = server_factory("--workers", "2", "--drain-timeout", "0.1")
    until(lambda: len(server.workers()) == 2)
    stuck, other = server.workers()
    os.kill(stuck, signal.SIGSTOP)
    assert server.stop() == 0
    assert not is_alive(stuck)
    assert not is_alive(other)
    assert server.log.read_text().count("did not drain") == 1


def run_parent(script: str, told: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return subprocess.run(
            [sys.executable, "-c", script, "--fd", str(listener.fileno()), "--workers", "2"],
            input=told,
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            cwd=tmp_path,
        )


@pytest.mark.parametrize(
    ("break_", "said"),
    [
        ("raise ValueError('no such store')", "ValueError: no such store"),
        ("os._exit(3)", "worker 1 ended with 3"),
        ("os.kill(os.getpid(), 9)", "worker 1 ended with -9"),
    ],
)
def test_a_worker_that_ends_while_it_starts_ends_them_all(break_: str, said: str, tmp_path: Path) -> None:
    told = WorkerConfig(dsn="", artifact_root=root.parse(f"file://{tmp_path}"), artifact_secret="", drain_s=1).to_json()
    done = run_parent(BROKEN.format(break_=break_), told + "\n", tmp_path)
    assert done.returncode == 1
    assert said in done.stderr


def test_it_ends_when_the_supervisor_has_nothing_to_tell(tmp_path: Path) -> None:
    done = run_parent("import sys; from stepstream_ingest import workers; sys.exit(workers.main())", "", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
