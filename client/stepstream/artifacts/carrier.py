"""The background thread that carries files to the store, and may wait for hours."""

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from stepstream.artifacts.item import REWRITTEN, Item
from stepstream.artifacts.reader import ReaderStopped
from stepstream.artifacts.readers import STREAMS_AT_ONCE, Readers
from stepstream.artifacts.remote import Damaged, Refused, Remote, TooLarge
from stepstream.artifacts.sending import FILES_AT_ONCE, Again, Failed, Sending
from stepstream.artifacts.source import FileSource, SourceFailed, StreamSource
from stepstream.backoff import Backoff
from stepstream.notices import Notices
from stepstream.settings import Settings
from stepstream.transport import BlockingLoop, Rejected, Unavailable
from stepstream_schema import limits

LARGE_AT_ONCE: Final = 4
"""While one is hashed others are sent; however many wait, small files pass them."""
MAX_TRIES: Final = 4
"""Of a file that changes, or arrives damaged, each time it is sent."""
AGAIN_S: Final = 1.0
"""Before the second try of such a file; each further pause is twice as long."""
REJECTED_RETRY_S: Final = 30.0
"""A wrong token or address is mended by people."""


class Ended(Protocol):
    """Told of each file once."""

    def __call__(self, item: Item, error: str | None, *, keep: bool = False) -> None:
        """It is stored, or will not be by this process; with `keep` somebody may send it later."""


@dataclass(eq=False, slots=True)
class _Lane:
    """Files of one kind: no kind waits for another."""

    at_once: int
    waiting: deque[Item] = field(default_factory=deque)
    under_way: int = 0


class Carrier:
    """Law: what was taken is told as ended once, unless the thread is stopped before. Safe to use from any thread.

    The thread tells of its own end, too: what is left is then in nobody's hands.
    """

    def __init__(
        self,
        settings: Settings,
        run_id: str,
        rank: int | None,
        notices: Notices,
        ended: Ended,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._run_id = run_id
        self._rank = rank
        self._notices = notices
        self._ended, self._over = ended, over
        self._backoff = Backoff(random.SystemRandom().uniform)
        self._small, self._large, self._streams = _Lane(FILES_AT_ONCE), _Lane(LARGE_AT_ONCE), _Lane(STREAMS_AT_ONCE)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._stopping = False
        self._is_started = False
        self._streams_wait = False
        """A handler's, for who is just starting."""
        self._thread: threading.Thread | None = None
        self._readers: Readers | None = None
        self._sending: Sending | None = None
        self._not_before = 0.0
        self._troubles = 0
        """How often everything had to wait; files that meet the same trouble count it once."""

    def start(self, *, with_streams: bool) -> None:
        """The thread, unless it runs; by one caller at a time. Raises RuntimeError where the system gives none.

        A signal handler that logs may come in between: it goes on, and who was interrupted starts what it needs.
        """
        if not self._is_started:
            self._is_started = True
            try:
                self._begin()
            except RuntimeError:
                self._is_started = False
                raise
        if with_streams and self._readers is None:
            self._streams_wait = True
        elif with_streams and self._readers is not None:
            self._readers.open_streams()

    def _begin(self) -> None:
        readers = self._readers = Readers()
        self._thread = threading.Thread(target=self._run, name="stepstream-artifacts", daemon=True)
        try:
            if self._streams_wait:
                readers.open_streams()
            self._thread.start()
        except RuntimeError:
            readers.stop()
            self._readers = self._thread = None
            raise

    def take(self, items: Sequence[Item]) -> None:
        """Carry these, too."""
        for item in items:
            self._lane(item).waiting.append(item)
        # A store that is away is not asked again for each file that is logged meanwhile.
        self._tell(self._look)

    def hurry(self) -> None:
        """Somebody waits: try at once rather than after the pause."""
        self._tell(self._go_on_now)

    @property
    def busy_until(self) -> float:
        """By when the server should have completed what it was asked to, on the monotonic clock."""
        return self._sending.busy_until if self._sending is not None else 0.0

    def stop(self, timeout_s: float) -> None:
        """End the thread; it may live on for a while."""
        self._stopping = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        if self._readers is not None:
            self._readers.stop()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_over(self) -> bool:
        """Whether there is no thread, or none any more."""
        return self._thread is None or not self._thread.is_alive()

    def _tell(self, what: Callable[[], None]) -> None:
        """The thread's loop, if it runs."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between: nobody is left to tell
                loop.call_soon_threadsafe(what)

    def _lane(self, item: Item) -> _Lane:
        if not isinstance(item.source, FileSource):
            return self._streams
        try:
            return self._small if item.source.size <= limits.SINGLE_PUT_BYTES else self._large
        except OSError:
            # It is gone, and will be told so when its turn comes.
            return self._small

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=BlockingLoop) as runner:
                runner.run(self._main())
        except asyncio.CancelledError:
            return
        except Exception as error:  # noqa: BLE001 - a thread's last words; what is left is noted
            self._notices.once("artifacts", f"uploading ended: {error!r}; what is left: stepstream sync")
        finally:
            self._over()

    async def _main(self) -> None:
        assert self._readers is not None
        self._event = asyncio.Event()
        async with Remote(self._settings.tracking_uri, self._settings.token) as remote:
            self._sending = Sending(remote, self._run_id, self._rank, self._readers, self._in_the_way)
            self._loop = asyncio.get_running_loop()
            tasks: set[asyncio.Task[None]] = set()
            while not self._stopping:
                self._event.clear()
                pause_s = self._not_before - time.monotonic()
                if pause_s <= 0:
                    self._admit(self._sending, tasks)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._event.wait(), pause_s if pause_s > 0 else None)

    def _go_on_now(self) -> None:
        self._not_before = 0.0
        self._look()

    def _look(self) -> None:
        if self._event is not None:
            self._event.set()

    def _admit(self, sending: Sending, tasks: "set[asyncio.Task[None]]") -> None:
        sending.away = None
        for lane in (self._small, self._large, self._streams):
            while lane.under_way < lane.at_once and lane.waiting:
                lane.under_way += 1
                task = asyncio.create_task(self._carry(sending, lane, lane.waiting.popleft()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _carry(self, sending: Sending, lane: _Lane, item: Item) -> None:
        try:
            await self._try(sending, lane, item)
        finally:
            lane.under_way -= 1
            assert self._event is not None
            self._event.set()

    async def _try(self, sending: Sending, lane: _Lane, item: Item) -> None:
        troubles = self._troubles
        try:
            await sending.carry(item)
        except (Unavailable, Refused, Rejected) as error:
            if troubles == self._troubles:
                self._in_the_way(error)
            lane.waiting.appendleft(item)
        except (Again, SourceFailed, Damaged) as error:
            await self._again(lane, item, error)
        except Failed as error:
            self._ended(item, str(error))
        except TooLarge as error:
            self._ended(item, f"{item.path}: {error}", keep=True)
        except ReaderStopped:
            return
        except Exception as error:  # noqa: BLE001 - of this file alone; others go on
            self._ended(item, f"{item.path}: {error!r}", keep=True)
        else:
            if item.was_rewritten:
                item.handle.rewritten += 1
                self._notices.once("artifact rewritten", f"{REWRITTEN.format(path=item.path)}; see Upload.rewritten")
            self._ended(item, None)
            if troubles == self._troubles:
                self._backoff.succeeded()
                self._notices.over("artifacts away", "artifacts are being uploaded again")

    async def _again(self, lane: _Lane, item: Item, error: Exception) -> None:
        item.tries += 1
        if item.tries >= MAX_TRIES or isinstance(item.source, StreamSource):
            self._ended(item, f"{item.path}: {error} (tried {item.tries} times)", keep=True)
            return
        await asyncio.sleep(AGAIN_S * 2 ** (item.tries - 1))
        lane.waiting.appendleft(item)

    def _in_the_way(self, error: Exception) -> None:
        """Everything waits, and is tried again."""
        self._troubles += 1
        if isinstance(error, Rejected):
            pause_s = REJECTED_RETRY_S
            self._notices.once(
                f"artifacts {error.status}",
                f"artifacts are not taken ({error}); check STEPSTREAM_TRACKING_URI and STEPSTREAM_TOKEN",
            )
        else:
            pause_s = self._backoff.failed(error.retry_after_s if isinstance(error, Unavailable) else None)
            self._notices.once(
                "artifacts away", f"artifacts cannot be uploaded now ({error}); training goes on, they are tried again"
            )
        self._not_before = time.monotonic() + pause_s
