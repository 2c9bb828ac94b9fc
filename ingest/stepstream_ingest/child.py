"""Child processes that do not outlive this one, even when it is killed."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final

PR_SET_PDEATHSIG: Final = 1
"""prctl(2); Linux only. Elsewhere a killed supervisor leaves its children to be found by the next start."""


def start(
    command: Sequence[str],
    *,
    on_parent_death: signal.Signals,
    environment: Mapping[str, str] | None = None,
    output: IO[Any] | int | None = None,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start `command` in a session of its own, so that a terminal's Ctrl-C reaches only this process."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=_death_signal(on_parent_death),
    )


def _death_signal(number: signal.Signals) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)  # the parent died between fork and here

    return arrange
