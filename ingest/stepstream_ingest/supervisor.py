"""The first process: PostgreSQL, migrations, the listening socket, and the parent of the workers that share it."""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from stepstream_ingest import child, private
from stepstream_ingest.artifacts import secret as artifact_secret
from stepstream_ingest.artifacts.stores.open import check
from stepstream_ingest.config import ServerConfig
from stepstream_ingest.data_dir import DataDir
from stepstream_ingest.errors import ServerSetupError
from stepstream_ingest.migrations import migrate
from stepstream_ingest.postgres import binaries, given
from stepstream_ingest.postgres.cluster import Cluster
from stepstream_ingest.tally import Tally
from stepstream_ingest.worker_config import WorkerConfig

LOGGER: Final = logging.getLogger(__name__)
BACKLOG: Final = 1024
"""512 clients that come back together after an outage wait here, not in an error."""
SPARE_CONNECTIONS: Final = 20
"""For people, and for what a killed worker has not yet given back."""
RESTART_PAUSE_S: Final = 1.0
"""For PostgreSQL, and for the workers' parent."""
KILL_GRACE_S: Final = 8.0
"""Beyond the drain time: longer than the workers' parent waits before it kills them."""
WATCH_S: Final = 0.2

Found = TypeVar("Found")


async def serve(config: ServerConfig) -> None:
    """Run a server until SIGTERM or SIGINT. Raises ServerSetupError, DatabaseAway or DatabaseTooNew."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with (
        listen(config.host, config.port) as listener,
        _places(config) as shared,
        # They import what they need while PostgreSQL starts.
        WorkersParent(config, listener, shared) as workers,
    ):
        async with _database(config, stop) as found:
            if found is None:
                return
            dsn, cluster, described = found
            connections = await _unless(stop, _prepare(dsn, cluster, config.workers))
            if connections is None:
                return
            workers.begin(dsn, connections, await artifact_secret.load(dsn))
            try:
                await workers.wait_until_ready(stop)
                _say_ready(config, listener, described)
                await _watch(stop, workers, cluster)
            finally:
                await workers.stop()


@contextlib.contextmanager
def _places(config: ServerConfig) -> Iterator[Path]:
    """The directories of this server; where the workers add up counters and count connections. Empty at each start."""
    with contextlib.ExitStack() as stack:
        if config.database_url is None:
            directory = stack.enter_context(DataDir(config.data_dir))
            if private.is_open_to_others(directory.path):
                LOGGER.warning(
                    "other users of this machine may look into %s, though into nothing that is new there; "
                    "chmod 700 keeps it to you",
                    directory.path,
                )
            shared = directory.path / "workers"
            # Of a server that was killed.
            shutil.rmtree(shared, ignore_errors=True)
            private.make(shared)
        else:
            try:
                shared = Path(tempfile.mkdtemp(prefix="stepstream-workers-"))
            except OSError as error:
                raise ServerSetupError(
                    f"the workers need a directory for what they count, and there is none: {error}; set TMPDIR"
                ) from error
            # Whoever clears the system's directory of what has not changed for days leaves what is locked.
            stack.callback(os.close, _locked(shared))
        stack.callback(shutil.rmtree, shared, ignore_errors=True)
        check(config.artifact_root, os.environ)
        yield shared


def _locked(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def _say_ready(config: ServerConfig, listener: socket.socket, database: str) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"StepStream is ready at {address} (workers: {config.workers}, database: {database})", flush=True)


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, before anything else is started. Raises ServerSetupError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Bound and listening here: the second of two servers must fail now, not at its first request.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ServerSetupError(f"port {port} of {host} is taken; choose another with --port") from error
        raise ServerSetupError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


@contextlib.asynccontextmanager
async def _database(config: ServerConfig, stop: asyncio.Event) -> AsyncIterator[tuple[str, Cluster | None, str] | None]:
    """Its DSN, the cluster where it is ours, and what to call it; None when told to stop before it was there."""
    if config.database_url is not None:
        yield config.database_url, None, _without_password(config.database_url)
        return
    found = binaries.find()
    connections = config.workers * given.MAX_PER_WORKER + SPARE_CONNECTIONS
    cluster = Cluster(config.data_dir / "postgres", found, max_connections=connections)
    try:
        if await _unless(stop, _started(cluster)) is None:
            yield None
            return
        kind = "embedded PostgreSQL" if found.embedded else "this machine's PostgreSQL"
        yield cluster.dsn, cluster, f"{kind} {found.version} in {config.data_dir}"
    finally:
        await cluster.stop()


async def _started(cluster: Cluster) -> Cluster:
    await cluster.start()
    return cluster


async def _prepare(dsn: str, cluster: Cluster | None, workers: int) -> int:
    """The database at the current schema; how many connections each worker may open."""
    if cluster is not None:
        connections = given.MAX_PER_WORKER
        await migrate(dsn)
    else:
        with given.explained(_without_password(dsn)):
            connections = await given.check(dsn, workers)
            await migrate(dsn)
    if connections < given.MAX_PER_WORKER:
        LOGGER.warning(
            "PostgreSQL allows few connections: each worker opens at most %d instead of %d",
            connections,
            given.MAX_PER_WORKER,
        )
    return connections


def _without_password(dsn: str) -> str:
    try:
        parts = urlsplit(dsn)
    except ValueError:
        # Whoever connects says what is wrong with it.
        return "PostgreSQL"
    return f"PostgreSQL at {parts.hostname or 'a local socket'}{parts.path}"


class WorkersParent:
    """The process whose children the workers are: started, restarted when it dies, stopped."""

    def __init__(self, config: ServerConfig, listener: socket.socket, shared: Path) -> None:
        self._config, self._listener, self._shared = config, listener, shared
        self._tally = shared / "connections"
        Tally.create(self._tally, config.workers)
        self._told: WorkerConfig | None = None
        self._process = self._start()
        self._died_at: float | None = None

    def __enter__(self) -> "WorkersParent":
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened: it does not outlive this."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def begin(self, dsn: str, connections: int, secret: str) -> None:
        """Start the workers."""
        self._told = WorkerConfig(
            dsn=dsn,
            artifact_root=self._config.artifact_root,
            artifact_secret=secret,
            token=self._config.token,
            old_tokens=self._config.old_tokens,
            allowed_hosts=self._config.allowed_hosts,
            heartbeat_timeout_s=self._config.heartbeat_timeout_s,
            drain_s=self._config.drain_s,
            connections=connections,
            compaction=self._config.compaction,
            tally=str(self._tally),
        )
        self._tell(self._told)

    async def wait_until_ready(self, stop: asyncio.Event) -> None:
        """Until one of them answers; the others follow within moments. Raises ServerSetupError."""
        host, port = self._listener.getsockname()[:2]
        target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        while not stop.is_set():
            if self._process.poll() is not None:
                raise ServerSetupError("a worker ended while it started; its message is above")
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    reader, writer = await asyncio.open_connection(target, port)
                    writer.write(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answered = (await reader.readline()).startswith(b"HTTP/1.1 200")
                    writer.close()
                    if answered:
                        return
            await asyncio.sleep(0.05)

    def revive(self) -> None:
        """Restart it when it has died, at most once a second; it restarts its workers itself."""
        if self._process.poll() is None or self._told is None:
            return
        if self._died_at is None:
            LOGGER.error("the workers' parent ended with %d and is restarted", self._process.returncode)
            self._died_at = time.monotonic()
        elif time.monotonic() - self._died_at >= RESTART_PAUSE_S:
            self._died_at = None
            self._process = self._start()
            self._tell(self._told)

    async def stop(self) -> None:
        """Let the workers drain; what is still there long after the stated time is killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, self._config.drain_s + KILL_GRACE_S)
        except subprocess.TimeoutExpired:
            LOGGER.error("the workers did not drain in %g s and are killed", self._config.drain_s)

    def _start(self) -> "subprocess.Popen[bytes]":
        descriptor = self._listener.fileno()
        arguments = ["--fd", str(descriptor), "--workers", str(self._config.workers)]
        return child.start(
            [sys.executable, "-m", "stepstream_ingest.workers", *arguments],
            on_parent_death=signal.SIGTERM,
            # NumPy's linear algebra would start threads, which nobody here has a use for, and which a fork forbids.
            environment=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PROMETHEUS_MULTIPROC_DIR": str(self._shared)},
            told=True,
            pass_fds=(descriptor,),
        )

    def _tell(self, told: WorkerConfig) -> None:
        assert self._process.stdin is not None
        # One that has ended already is found by its exit code.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(told.to_json().encode() + b"\n")


async def _watch(stop: asyncio.Event, workers: WorkersParent, cluster: Cluster | None) -> None:
    """Until told to stop: restart what dies."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WATCH_S)
            return
        workers.revive()
        if cluster is None:
            continue
        try:
            if not cluster.is_running:
                LOGGER.error("PostgreSQL ended and is restarted; clients keep what is not acknowledged")
                await _unless(stop, cluster.start())
            cluster.keep_log_short()
        except (ServerSetupError, OSError) as error:
            LOGGER.error("PostgreSQL did not come back: %s", error)
            await asyncio.sleep(RESTART_PAUSE_S)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Found]) -> Found | None:
    """Do the work, or leave it when told to stop: None."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None
