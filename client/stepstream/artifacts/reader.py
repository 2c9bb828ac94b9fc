"""A thread that reads beside the event loop: hashing and streams must not hold up transfers."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

Found = TypeVar("Found")


class ReaderStopped(Exception):
    """Nobody waits for it any more."""


class Reader:
    """Law: jobs run one at a time, in order, and each caller gets what its own found or raised.

    A thread of its own and no executor: those take no work once the interpreter has begun to exit, just when the last
    files are sent. For the same reason it starts at once, and never later.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # No Event: a signal handler may end the run while this very thread sets it, and would wait for its lock.
        self._stopped = False
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, job: Callable[[], Found]) -> Found:
        """What `job` returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                self.go_on()
                found = job()
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                _tell(loop, future, future.set_exception, _raisable(error))
            else:
                _tell(loop, future, future.set_result, found)

        self._jobs.put(work)
        return await future

    def go_on(self) -> None:
        """Raise ReaderStopped where nobody waits any more; long jobs ask in between."""
        if self._stopped:
            raise ReaderStopped

    def stop(self) -> None:
        """End after the job under way."""
        self._stopped = True
        self._jobs.put(None)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _work(self) -> None:
        while job := self._jobs.get():
            job()


def _tell(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", tell: Callable[[Any], None], said: Any
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop closed meanwhile: nobody waits
        loop.call_soon_threadsafe(lambda: None if future.done() else tell(said))


def _raisable(error: BaseException) -> Exception:
    # In a coroutine these would mean something else: an end of it, or of the program.
    is_plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
    return error if is_plain else RuntimeError(repr(error))  # type: ignore[return-value]
