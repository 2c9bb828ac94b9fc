"""Child processes that do not outlive this one, even when it is killed."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, Final, NoReturn

LOGGER: Final = logging.getLogger(__name__)
PR_SET_PDEATHSIG: Final = 1
"""prctl(2); Linux only. Elsewhere a killed supervisor leaves its children to be found by the next start."""


def start(
    command: Sequence[str],
    *,
    on_parent_death: signal.Signals,
    environment: Mapping[str, str] | None = None,
    told: bool = False,
    output: IO[Any] | int | None = None,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start `command` in a session of its own, so that a terminal's Ctrl-C reaches only this process.

    One that is `told` something reads it from its standard input.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE if told else subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=_death_signal(on_parent_death),
    )


def fork(do: Callable[[], None], *, on_parent_death: signal.Signals) -> int:
    """Do something in a copy of this process, which must have no threads; its pid. Raises OSError.

    There signals do what they do by default, and the exit code is 1 when an exception was raised.
    """
    arrange = _death_signal(on_parent_death)
    # A signal that came before the copy has let go of this process's handlers would be lost on it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be_copy(do, arrange, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _be_copy(do: Callable[[], None], arrange: Callable[[], None] | None, mask: Iterable[int]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        if arrange is not None:
            arrange()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        do()
        code = 0
    except Exception:
        LOGGER.exception("process %d ends by an error", os.getpid())
    finally:
        # Nothing of the process that this is a copy of may run here.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


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
