"""A StepStream server and a PostgreSQL for the length of a benchmark."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil

from stepstream_ingest.postgres import binaries
from stepstream_ingest.postgres.cluster import Cluster

START_TIMEOUT_S = 120
REST_CORES = 0.2
REST_S = 2
"""A server has started when it took less than this of a core for so long, one second after the other."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """One durable PostgreSQL for every contender of a run; each gets a database of its own."""

    def __init__(self, directory: Path) -> None:
        self._cluster = Cluster(directory / "postgres", binaries.find(), max_connections=200, tcp_port=free_port())
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Postgres":
        asyncio.run(self._cluster.start())
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self._cluster.stop())

    def fresh(self, name: str) -> str:
        """An empty database: its URL by socket."""
        asyncio.run(_recreate(self._cluster.dsn, name))
        return self._cluster.dsn.replace("/postgres?", f"/{name}?")

    def by_tcp(self, name: str) -> str:
        """The URL of a database by TCP, for drivers that want it so."""
        return f"postgresql://stepstream@127.0.0.1:{self._cluster.tcp_port}/{name}"


async def _recreate(dsn: str, name: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(dsn)
    await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await connection.execute("CHECKPOINT")
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


class Process:
    """A server process: started, waited for, and ended together with its children."""

    asked = "/health"
    """What is answered by 200 once it may be sent requests."""

    def __init__(self, command: Sequence[str], url: str, log: Path, environment: dict[str, str] | None = None) -> None:
        self.url = url
        self._command, self._log, self._environment = command, log, environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Process":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | (self._environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)
        self._rest(deadline)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _rest(self, deadline: float) -> None:
        """Until what it still does on its own has ended: MLflow's answers long before its job runners are there.

        They took both cores for 15 s in a slow hour, which must not be charged to what is measured.
        """
        calm, before = 0, self._cpu_s()
        while calm < REST_S:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} was not at rest {START_TIMEOUT_S} s after its start")
            time.sleep(1)
            now = self._cpu_s()
            calm = calm + 1 if now - before < REST_CORES else 0
            before = now

    def _cpu_s(self) -> float:
        """What its processes have taken so far."""
        used = 0.0
        for process in [started := psutil.Process(self.pid), *started.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self.asked, timeout=2) as response:
                return int(response.status) == 200
        except OSError:
            return False


class BenchmarkServer(Process):
    """A `stepstream server`, on the given database or on one of its own."""

    asked = "/ready"

    def __init__(
        self, directory: Path, database_url: str | None = None, workers: int | None = None, *options: str
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = [sys.executable, "-m", "stepstream.cli", "server", "--port", str(port), "--data-dir", str(directory)]
        if database_url:
            command += ["--database-url", database_url]
        if workers:
            command += ["--workers", str(workers)]
        command += options
        super().__init__(command, f"http://127.0.0.1:{port}", directory / "server.log")
