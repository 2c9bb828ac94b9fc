"""Signal handlers that come everywhere, and in every run of the tests at the same places."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

TRIES: Final = 3
"""Of a place, before it counts as behind the end of the work."""


class _Once:
    """Calls the handler at one place of what is traced, and counts all of them."""

    def __init__(self, place: int, handler: Callable[[], object], *, opcodes: bool) -> None:
        self.places = 0
        self._place, self._handler, self._opcodes = place, handler, opcodes

    def __call__(self, frame: FrameType, event: str, value: Any) -> Any:
        frame.f_trace_opcodes = self._opcodes
        if event != "call":
            self.places += 1
            if self.places == self._place:
                self._handler()
        return self


def everywhere(
    work: Callable[[], object], handler: Callable[[], object], *, opcodes: bool = False, first: int = 1
) -> Iterator[int]:
    """Do `work` again and again, and `handler` in the middle of it, each time one place later; the places it came to.

    They are the lines of Python that it passes, and what returns; with `opcodes` each step of the interpreter, too.
    """
    place = first
    while _came(work, handler, place, opcodes=opcodes):
        yield place
        place += 1


def _came(work: Callable[[], object], handler: Callable[[], object], place: int, *, opcodes: bool) -> bool:
    """Whether the work has so many places: now and then it has fewer, where another thread did a part of it."""
    for _ in range(TRIES):
        once = _Once(place, handler, opcodes=opcodes)
        before = sys.gettrace()
        sys.settrace(once)
        try:
            work()
        finally:
            sys.settrace(before)
        if once.places >= place:
            return True
    return False
