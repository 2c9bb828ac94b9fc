"""What happens to open runs when the process forks or ends.

A process has failed when an exception, or sys.exit() with a code other than 0 in the main thread, has reached the top.
`raise SystemExit(n)`, `exit(n)` and a sys.exit that was imported before the first run cannot be seen from here, and
os._exit() and signals end a process without asking; `with start_run()` sees the first three.
"""

import atexit
import os
import sys
import threading
import time
import weakref
from typing import Any, Final, NoReturn, Protocol

from stepstream.reentrant import Event


class Open(Protocol):
    """A run that wants to be told."""

    def _before_fork(self) -> None: ...

    def _after_fork_in_child(self) -> None: ...

    def _at_exit(self, *, failed: bool, waited_s: float) -> None:
        """The process ends, and has waited for other runs: for metrics all together wait no longer than one would."""


LOAD_TIMEOUT_S: Final = 10.0
"""How long a fork or the end of the process waits, at most, for the modules that a run has just begun to load; it takes
a third of a second."""

_OPEN: Final[dict[Open, None]] = {}
"""Held until it has ended, by whoever has started a run and kept nothing of it, too; in this order."""
_LOADING: "weakref.WeakSet[Event]" = weakref.WeakSet()
_hooked = False
_finalized_in = 0
"""The process whose end multiprocessing tells us of."""
_inherited = 0
"""The exception that was being handled when this process was forked; its address, for it holds on to a stack."""


def register(run: Open) -> None:
    """Tell `run` of forks and of the end of the process, from now on."""
    global _hooked
    _OPEN[run] = None
    if not _hooked:
        _hooked = True
        atexit.register(_exit)
        _watch_exit()
        if hasattr(os, "register_at_fork"):
            # Not before: hooks run last registered first, and one that waits for imports while it holds the lock of
            # `logging`, which they need, would wait in vain.
            os.register_at_fork(before=_forking, after_in_child=_forked)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        flush_at_multiprocessing_exit()


def unregister(run: Open) -> None:
    """The run has ended."""
    _OPEN.pop(run, None)


def loading(loaded: Event) -> None:
    """A thread loads modules until this is set: the process does not end before.

    OpenSSL cleans up when the process ends, and a thread that reads certificates then, as aiohttp does while it is
    imported, crashes it: a training that was done would count as killed.
    """
    _LOADING.add(loaded)


def flush_at_multiprocessing_exit() -> None:
    """A multiprocessing child leaves by os._exit and runs no atexit hooks; it has finalizers of its own."""
    global _finalized_in
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _finalized_in != os.getpid():
        _finalized_in = os.getpid()
        util.Finalize(None, _exit, exitpriority=100)


def is_failure(code: object) -> bool:
    """Whether a process that exits with this has failed, as the interpreter reads it: a text is one, too."""
    return code != 0 if isinstance(code, int) else code is not None


def _is_failure(passing: BaseException | None) -> bool:
    if id(passing) == _inherited:
        return False
    return is_failure(passing.code) if isinstance(passing, SystemExit) else passing is not None


def _forking() -> None:
    for run in list(_OPEN):
        run._before_fork()


def _forked_anywhere() -> None:
    global _inherited
    passing = sys.exc_info()[1]
    _inherited = 0 if passing is None else id(passing)


def _forked() -> None:
    _LOADING.clear()
    for run in list(_OPEN):
        run._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_anywhere)

_CODE: Final[Any] = SystemExit.__dict__["code"]


class _Leaving(SystemExit):
    """What sys.exit raises: as SystemExit in all but this, that it knows when it has reached the top.

    Nobody else can tell: an exit that a script catches is none, and one that it does not leaves no trace in `sys`. Only
    the interpreter, about to leave, asks for the code with no caller on the stack.
    """

    left_with: Any = None
    """The code of the exit that nothing has caught."""

    @property
    def code(self) -> Any:
        code = _CODE.__get__(self)
        try:
            sys._getframe(1)
        except ValueError:
            _Leaving.left_with = code
        return code

    @code.setter
    def code(self, code: Any) -> None:
        _CODE.__set__(self, code)

    def __reduce__(self) -> Any:
        return SystemExit, self.args


_Leaving.__name__ = _Leaving.__qualname__ = "SystemExit"
_Leaving.__module__ = "builtins"


def _watch_exit() -> None:
    usual = sys.exit

    def exit(status: Any = None, /) -> NoReturn:
        # Elsewhere it ends a thread, which is told by the exception's very type.
        if threading.current_thread() is threading.main_thread():
            raise _Leaving(status)
        usual(status)

    exit.__doc__ = usual.__doc__
    sys.exit = exit


def _exit() -> None:
    # Set by the interpreter when an exception reached the top; a shell that goes on after one did not fail by it.
    raised = getattr(sys, "last_type", None) is not None and not hasattr(sys, "ps1")
    # The finalizers of a multiprocessing child run while what ends it is still on its way up.
    failed = raised or is_failure(_Leaving.left_with) or _is_failure(sys.exc_info()[1])
    began = time.monotonic()
    for run in list(_OPEN):
        run._at_exit(failed=failed, waited_s=time.monotonic() - began)
    for loaded in list(_LOADING):
        loaded.wait(LOAD_TIMEOUT_S)
