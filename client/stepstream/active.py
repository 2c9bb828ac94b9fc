"""The runs that are open in this process, and which of them a thread logs to when it names none."""

import os
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stepstream.run import Run

FLUSH_S: Final = 10.0
"""A question waits so long, at most, for what was logged before it."""

# Appended to and removed from in one step of the interpreter each: no lock that a fork could leave taken.
_open: "list[tuple[object, Run]]" = []
_last: "Run | None" = None
_own: Final = threading.local()
_main: object = None
_NOBODY: Final = object()
"""In the place of a thread: no thread logs to the run without naming it."""


def _me() -> object:
    """This thread, unlike any other there ever was: the system gives the number of one that has ended to the next."""
    global _main
    me: object = getattr(_own, "me", None)
    if me is None:
        me = _own.me = object()
        if threading.current_thread() is threading.main_thread():
            _main = me
    return me


def _forked() -> None:
    # A child has one thread, whichever of its parent's has made it: all that is open is that one's.
    global _main
    _main = _me()
    _open[:] = [(owner if owner is _NOBODY else _main, run) for owner, run in _open]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def opened(run: "Run") -> None:
    """This thread's newest run."""
    global _last
    _open.append((_me(), run))
    _last = run


def joined(run: "Run", *, is_current: bool) -> None:
    """It is open elsewhere, and is known here by its id; this thread logs to it only where that is what it is for."""
    _open.append((_me() if is_current else _NOBODY, run))


def closed(run: "Run") -> None:
    """It has ended, in whatever thread."""
    for entry in list(_open):
        if entry[1] is run:
            _open.remove(entry)


def current() -> "Run | None":
    """The newest open run of this thread; in a thread that has none, of the main thread."""
    for thread in (_me(), _main):
        for owner, run in reversed(_open):
            if owner is thread:
                return run
    return None


def last() -> "Run | None":
    """The run that was opened last, ended or not."""
    return _last


def by_id(run_id: str) -> "Run | None":
    """The open run of that id."""
    return next((run for _, run in reversed(_open) if run.run_id == run_id), None)


def flush_artifacts() -> bool:
    """Wait until the files that open runs have logged are stored, as each run's finish() would; whether they are."""
    done = [run.flush_artifacts() for _, run in list(_open)]
    return all(done)


def flush() -> bool:
    """Wait a little until what open runs have logged is durable; whether it is."""
    deadline = time.monotonic() + FLUSH_S
    # Each of them, whatever becomes of the one before.
    done = [run.flush(max(0.0, deadline - time.monotonic())) for _, run in list(_open)]
    return all(done)
