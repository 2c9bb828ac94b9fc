"""Waiting for something to happen, also in a signal handler or a destructor that interrupts who waits or tells."""

import contextlib
import threading


class Event:
    """As `threading.Event`. Law: nothing but `wait` ever waits, wherever it interrupts what in its own thread.

    That has a plain lock inside: a handler that comes while its thread holds it, and logs, would wait for itself. Here
    is none. A Condition over a reentrant one would not do: its notify_all, interrupted by another, finds nobody left.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: dict[threading.Lock, None] = {}
        """Whoever waits has a lock of its own here, which who tells it lets go."""

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """It has happened; whoever waits goes on."""
        self._is_set = True
        # Copied in one step of the interpreter: others come and go meanwhile.
        for waiter in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # it was told by another already
                waiter.release()

    def clear(self) -> None:
        """It can happen again."""
        self._is_set = False

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it has happened, at most so long; whether it has."""
        waiter = threading.Lock()
        waiter.acquire()
        self._waiting[waiter] = None
        try:
            # Looked at only now: who set it before has not seen this one, and who does from now on will.
            return self._is_set or waiter.acquire(timeout=-1 if timeout_s is None else timeout_s)
        finally:
            del self._waiting[waiter]
