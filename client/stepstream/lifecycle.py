"""What happens to open runs when the process forks or ends."""

import atexit
import os
import sys
import weakref
from typing import Protocol


class Open(Protocol):
    """A run that wants to be told."""

    def _before_fork(self) -> None: ...

    def _after_fork_in_child(self) -> None: ...

    def _at_exit(self, *, failed: bool) -> None: ...


_OPEN: "weakref.WeakSet[Open]" = weakref.WeakSet()
_hooked = False


def register(run: Open) -> None:
    """Tell `run` of forks and of the end of the process, from now on."""
    global _hooked
    _OPEN.add(run)
    if not _hooked:
        _hooked = True
        atexit.register(_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_forking, after_in_child=_forked)


def unregister(run: Open) -> None:
    """The run has ended."""
    _OPEN.discard(run)


def flush_at_multiprocessing_exit() -> None:
    """A multiprocessing child leaves by os._exit and runs no atexit hooks; it has finalizers of its own."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _exit, exitpriority=100)


def _forking() -> None:
    for run in list(_OPEN):
        run._before_fork()


def _forked() -> None:
    for run in list(_OPEN):
        run._after_fork_in_child()


def _exit() -> None:
    # Set by the interpreter when an exception reached the top; a shell that goes on after one did not fail by it.
    failed = getattr(sys, "last_type", None) is not None and not hasattr(sys, "ps1")
    for run in list(_OPEN):
        run._at_exit(failed=failed)
