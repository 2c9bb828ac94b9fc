"""The demo's server: a real `stepstream server` process of its own."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from stepstream.errors import StepStreamError

START_TIMEOUT_S = 60.0


class DemoServerError(StepStreamError):
    """The demo's server did not start; the message holds what it said."""


class DemoServer:
    """Runs while the `with` block does, with its data in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> "DemoServer":
        self._directory.mkdir(parents=True, exist_ok=True)
        log = open(self._directory / "server.log", "wb")
        self._log = log
        command = [sys.executable, "-m", "stepstream.cli", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(
            [*command, "--data-dir", str(self._directory)], stdout=log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                said = (self._directory / "server.log").read_text(errors="replace")[-2000:]
                raise DemoServerError(f"the server did not start. It said:\n{said}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.close()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=2) as response:
                return int(response.status) == 200
        except (urllib.error.URLError, OSError):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
