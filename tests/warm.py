"""A Python that has imported already what takes seconds of processor time: tests that start it do not wait again."""

import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path


class WarmPython:
    """Law: what runs in it has a process of its own, with arguments, environment and exit as it would have had."""

    def __init__(self, python: str, *modules: str) -> None:
        environ = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        # Its own session: what it has started can be ended with it.
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("warm_host.py")), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environ,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, environ: Mapping[str, str], timeout_s: float = 150
    ) -> "subprocess.CompletedProcess[str]":
        """`python ARGUMENTS`. Raises TimeoutError, and ends everything that it has started."""
        with tempfile.TemporaryDirectory() as scratch:
            stdout, stderr = Path(scratch) / "stdout", Path(scratch) / "stderr"
            asked = {"arguments": arguments, "environ": dict(environ), "stdout": str(stdout), "stderr": str(stderr)}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            code = self._answer(timeout_s)
            said = [one.read_text() if one.exists() else "" for one in (stdout, stderr)]
        return subprocess.CompletedProcess(arguments, code, *said)

    def close(self) -> None:
        """End it."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _answer(self, timeout_s: float) -> int:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                os.killpg(self._process.pid, signal.SIGKILL)
                raise TimeoutError(f"nothing ended within {timeout_s:g} s")
        answer = self._process.stdout.readline()
        assert answer, "the Python that was kept has ended"
        return int(answer)
