"""Real `stepstream server` processes for tests, and what goes wrong with them."""

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from stepstream_ingest.postgres.cluster import DATABASE, USER

START_TIMEOUT_S = 60
PORTS = range(10_000, 32_768)
"""Below those that the system gives to whoever names none: nobody else has one before its server does, or while that
is started again."""


def _own_ports() -> Iterator[int]:
    # Each process of pytest-xdist has ports of its own; the first is drawn, for there may be another run beside this.
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) :: processes]
    for number in itertools.count(random.SystemRandom().randrange(len(own))):
        yield own[number % len(own)]


_ports = _own_ports()


def free_port() -> int:
    """One that nobody listens on."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("its ports have no end")


def database_url_of(directory: Path) -> str:
    """The PostgreSQL of the server that runs in the directory."""
    options = (directory / "postgres" / "postmaster.opts").read_text()
    sockets = re.search(r'"unix_socket_directories=([^"]+)"', options)
    assert sockets is not None
    return f"postgresql://{USER}@/{DATABASE}?host={sockets[1]}"


class ServerProcess:
    """One server with an embedded PostgreSQL in a directory of its own."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "server.log"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def database_url(self) -> str:
        """The server's own PostgreSQL, past the server."""
        return database_url_of(self.directory)

    def start(self) -> None:
        """Start and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("STEPSTREAM_", "MLFLOW_"))}
        command = [sys.executable, "-m", "stepstream.cli", "server", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--data-dir", str(self.directory), *self._arguments],
                env=clean,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """SIGKILL of the supervisor: its children notice."""
        self._signal(signal.SIGKILL)

    def workers(self) -> list[int]:
        """The worker processes."""
        parent = self.workers_parent()
        try:
            return [child.pid for child in parent.children()] if parent is not None else []
        except psutil.NoSuchProcess:
            return []

    def workers_parent(self) -> psutil.Process | None:
        """The process that forks them; none while it is being replaced."""
        # Not psutil's cmdline(): it raises for one that has just been killed. One that has been reaped has no file.
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(FileNotFoundError):
                if b"stepstream_ingest.workers" in Path(f"/proc/{child.pid}/cmdline").read_bytes():
                    return child
        return None

    def kill_everything(self) -> None:
        """SIGKILL of workers, PostgreSQL and all its processes, and the supervisor, before any can do anything."""
        family = psutil.Process(self.pid).children(recursive=True)
        # The supervisor last: its death would be a SIGTERM to the others.
        for process in [*family, psutil.Process(self.pid)]:
            # A backend of PostgreSQL ends with the worker that was killed before it.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=20)
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._signal(signal.SIGTERM)

    def restart(self) -> None:
        """Start again on the same port and data."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._port_is_taken():
            assert time.monotonic() < deadline, "the workers of a killed supervisor live on"
            time.sleep(0.05)
        self.start()

    def postmaster(self) -> int:
        return int((self.directory / "postgres" / "postmaster.pid").read_text().split()[0])

    def kill_postgresql(self) -> None:
        """SIGKILL of the postmaster alone."""
        os.kill(self.postmaster(), signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(timeout=60)

    def _port_is_taken(self) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                return True
        return False
