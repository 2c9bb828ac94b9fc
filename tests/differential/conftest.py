"""Both servers, started once."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential.pair import Pair, Side
from tests.e2e.test_mlflow_client import python_with
from tests.servers import ServerProcess, free_port

START_TIMEOUT_S = 300


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A stock server on SQLite, and ours."""
    python = python_with("3")
    directory = tmp_path_factory.mktemp("differential")
    port = free_port()
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db", "--artifacts-destination", f"{directory}/files"]
    # Jobs are no part of what is compared, and their runners took both cores for 15 s to start.
    environ = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (directory / "mlflow.log").open("ab") as log:
        stock = subprocess.Popen(
            [*command, *store], stdout=log, stderr=log, cwd=directory, start_new_session=True, env=environ
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, stock, directory / "mlflow.log")
        ours = ServerProcess(directory / "stepstream")
        try:
            yield Pair(Side(url, "mlflow-artifacts:"), Side(ours.url, "mlflow-artifacts:"))
        finally:
            ours.stop()
    finally:
        # With its workers, and at once: nobody asks what it leaves behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(stock.pid, signal.SIGKILL)
        stock.wait(timeout=30)


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url + "/health", timeout=2):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the stock server did not start:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.2)
