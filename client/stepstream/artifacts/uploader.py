"""The background thread that carries files to the store, and may wait for hours."""

import asyncio
import contextlib
import io
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from stepstream.artifacts import pending, streams, tree
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.handles import Handles
from stepstream.artifacts.item import REWRITTEN, Item
from stepstream.artifacts.memory import Memory
from stepstream.artifacts.noted import Noted, Notes
from stepstream.artifacts.reader import ReaderStopped
from stepstream.artifacts.readers import STREAMS_AT_ONCE, Readers
from stepstream.artifacts.remote import Damaged, Refused, Remote, TooLarge
from stepstream.artifacts.sending import FILES_AT_ONCE, Again, Failed, Sending
from stepstream.artifacts.source import FileSource, SourceFailed, StreamSource
from stepstream.artifacts.tree import LocalFile
from stepstream.backoff import Backoff
from stepstream.errors import ArtifactError
from stepstream.notices import Notices
from stepstream.progress import Bar
from stepstream.settings import Settings
from stepstream.transport import BlockingLoop, Rejected, Unavailable
from stepstream_schema import limits

LARGE_AT_ONCE: Final = 4
"""While one is hashed others are sent; however many wait, small files pass them."""
MAX_WAITING: Final = 100_000
"""Files: some 3 KB of memory and two files in the spool each. A call that finds fewer is taken, however many it has."""
OPEN_FILES: Final = 128
"""Descriptors held for files that wait; beyond it a file is opened when its turn comes."""
WAIT_S: Final = 0.1
MAX_TRIES: Final = 4
"""Of a file that changes, or arrives damaged, each time it is sent."""
AGAIN_S: Final = 1.0
"""Before the second try of such a file; each further pause is twice as long."""
REJECTED_RETRY_S: Final = 30.0
"""A wrong token or address is mended by people."""


@dataclass(eq=False, slots=True)
class _Lane:
    """Files of one kind: no kind waits for another."""

    at_once: int
    waiting: deque[Item] = field(default_factory=deque)
    under_way: int = 0


class Uploader:
    """Law: a file that was taken ends stored or failed, or is named by `left()`; a copy goes only when nobody needs it.

    Safe to use from any thread.
    """

    def __init__(self, settings: Settings, run_id: str, rank: int | None, notices: Notices) -> None:
        self._settings = settings
        self._run_id = run_id
        self._rank = rank
        self._notices = notices
        self._backoff = Backoff(random.SystemRandom().uniform)
        # Reentrant: a signal handler may log while this very thread holds it.
        self._lock = threading.RLock()
        """Held for what threads share (`_left`, `_open_files`, `_last_ms`, `_stopping`), never during I/O."""
        self._small, self._large, self._streams = _Lane(FILES_AT_ONCE), _Lane(LARGE_AT_ONCE), _Lane(STREAMS_AT_ONCE)
        self._left: dict[Item, None] = {}
        """In the order in which they were logged."""
        self._open_files = 0
        self._last_ms = 0
        self._notes = Notes(settings, run_id, rank, notices)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._readers: Readers | None = None
        self._sending: Sending | None = None
        self._not_before = 0.0
        self._troubles = 0
        """How often everything had to wait; files that meet the same trouble count it once."""
        self._handles = Handles()
        self._memory = Memory(settings.buffer_bytes)
        """For what no disk takes."""
        self._streamed = Memory(settings.buffer_bytes)
        """For file objects that keep in memory what they hold."""

    def put_file(self, local: Path, directory: str | None) -> Upload:
        """One file. Raises ArtifactError."""
        logged_at_ms = self._now_ms()
        if not local.is_file():
            raise ArtifactError(f"{local} is no file; log_artifacts takes directories")
        path = tree.joined(directory, local.name)
        if self._is_full:
            return self._dropped(path)
        return self._put(path, [LocalFile(local=local, path=path)], (), logged_at_ms)

    def put_directory(self, root: Path, directory: str | None) -> Upload:
        """Every file below a directory, as of one time: what another call logs meanwhile is newer, all of it."""
        logged_at_ms = self._now_ms()
        if self._is_full:
            return self._dropped(str(root))
        found, refused = tree.files_below(root, directory)
        return self._put((directory or "").strip("/"), found, tuple(refused), logged_at_ms)

    def put_stream(self, file: IO[Any], path: str) -> Upload:
        """What a file object holds from here on; what is short, and need not be waited for, is read at once."""
        path = tree.joined(None, path)
        if self._is_full:
            return self._dropped(path)
        try:
            is_probed = streams.is_seekable(file)
            body = streams.short(file, pending.COPY_BYTES) if is_probed else None
            if body is not None:
                return self.put_bytes(body, path)
            handle = Upload(path, 1)
            held = streams.in_memory(file)
            if held and not self._streamed.take(handle, held, even_alone=True):
                # Its owner may have let go of it long ago, and nobody knows how long the server stays away.
                return self.put_bytes(streams.rest(file), path)
        except ArtifactError:
            raise
        except Exception as error:
            raise ArtifactError(f"{path}: its stream cannot be read: {error!r}") from error
        self._take([self._item(path, StreamSource(file), handle)], handle)
        return handle

    def put_bytes(self, body: bytes, path: str) -> Upload:
        """Bytes, by way of a file in the spool; where its disk takes none, from memory, as much as a run may buffer."""
        logged_at_ms = self._now_ms()
        path = tree.joined(None, path)
        if self._is_full:
            return self._dropped(path)
        try:
            local = self._notes.keep(body)
        except OSError as error:
            return self._put_from_memory(body, path, f"{self._notes.folder}: {error.strerror}")
        return self._put(path, [LocalFile(local=local, path=path)], (), logged_at_ms, len(body))

    def _put_from_memory(self, body: bytes, path: str, why: str) -> Upload:
        handle = Upload(path, 1)
        if not self._memory.take(handle, len(body)):
            held = self._memory.held
            return self._dropped(
                path, f"it could not be kept until it is sent ({why}), and {held} bytes wait in memory already"
            )
        self._notices.once("artifact memory", f"files are sent from memory, and are lost with the process ({why})")
        self._take([self._item(path, StreamSource(io.BytesIO(body)), handle)], handle)
        return handle

    @property
    def _is_full(self) -> bool:
        with self._lock:
            return len(self._left) >= MAX_WAITING

    def _dropped(self, path: str, why: str = "") -> Upload:
        """It is not logged, which is said once, and counted by its handle and by finish()."""
        why = why or f"{MAX_WAITING:,} files wait already; log it again once some are stored (run.flush_artifacts())"
        self._notices.once("artifact dropped", f"a file was not logged: {path}: {why}")
        handle = Upload(path, 0, refused=(f"{path}: {why}",))
        self._take([], handle)
        return handle

    def finish(self, *, timeout_s: float, still_s: float) -> bool:
        """Wait until nothing is left, with a bar where somebody looks; whether everything is stored.

        Gives up after `timeout_s`, and earlier when nothing has moved for `still_s`.
        """
        self.hurry()
        bar = Bar("MB of artifacts", scale=10**6)
        started = moved_at = time.monotonic()
        moved = -1
        # Not handle by handle: of many small files each look at all of them would see one more that is done.
        while not self._handles.wait(min(WAIT_S, timeout_s)):
            now, progress = time.monotonic(), self._handles.moved
            if progress != moved or now < self._busy_until():
                moved, moved_at = progress, now
            if now - started >= timeout_s or now - moved_at >= still_s:
                break
            bar.show(self._handles.bytes_sent, self._handles.bytes_total)
        bar.close()
        return self._handles.are_stored

    def _busy_until(self) -> float:
        return self._sending.busy_until if self._sending is not None else 0.0

    def left(self) -> tuple[str, ...]:
        """Paths that are neither stored nor failed, and that another process can send."""
        with self._lock:
            return tuple(item.path for item in self._left if item.waits_for is not None)

    def unsaved(self) -> tuple[str, ...]:
        """Why those that are neither would not outlive this process."""
        with self._lock:
            paths = [item.path for item in self._left if item.waits_for is None]
        return tuple(f"{path}: it was not sent in time, and nothing but this process has it" for path in paths)

    def failed(self) -> tuple[str, ...]:
        """Why files will not be stored by this process."""
        return self._handles.failed()

    def hurry(self) -> None:
        """Somebody waits: try at once rather than after the pause."""
        self._tell(self._go_on_now)

    def _tell(self, what: Callable[[], None]) -> None:
        """The thread's loop, if it runs."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between: nobody is left to tell
                loop.call_soon_threadsafe(what)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; what is left stays noted in the spool."""
        with self._lock:
            self._stopping = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        if self._readers is not None:
            self._readers.stop()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout_s)
        self._leave_the_rest()

    def _leave_the_rest(self) -> None:
        """To `stepstream sync`, at once: this process may live on for days, and its thread for a while."""
        with self._lock:
            left = {item.waits_for for item in self._left if item.waits_for is not None}
        for noted in left:
            try:
                noted.leave()
            except OSError as error:
                self._notices.once("artifact note", f"{error}: what is left can be sent once this process has ended")

    def _put(
        self,
        path: str,
        files: Sequence[LocalFile],
        refused: tuple[str, ...],
        logged_at_ms: int,
        kept_bytes: int | None = None,
    ) -> Upload:
        handle = Upload(path, len(files), refused=refused)
        for reason in refused:
            self._notices.once("artifact refused", f"a file was not logged: {reason}; see the upload's errors")
        noted = self._notes.write(files, logged_at_ms, kept_bytes=kept_bytes)
        items = []
        for file in noted.files:
            source = FileSource(Path(file.local), self._descriptor(Path(file.local)), file.version)
            item = self._item(file.path, source, handle, file.content_type, file.logged_at_ms)
            item.waits_for = noted
            items.append(item)
        try:
            self._take(items, handle)
        except ArtifactError:
            for item in items:
                self._close(item)
            noted.forget()
            raise
        return handle

    def _now_ms(self) -> int:
        # Later calls of one process are later, even within a millisecond and when the clock is set back.
        with self._lock:
            self._last_ms = max(self._last_ms + 1, time.time_ns() // 1_000_000)
            return self._last_ms

    def _item(
        self,
        path: str,
        source: FileSource | StreamSource,
        handle: Upload,
        content_type: str | None = None,
        logged_at_ms: int | None = None,
    ) -> Item:
        return Item(
            path=path,
            source=source,
            content_type=content_type or tree.content_type(path),
            logged_at_ms=logged_at_ms or self._now_ms(),
            handle=handle,
        )

    def _descriptor(self, path: Path) -> int | None:
        with self._lock:
            if self._open_files >= OPEN_FILES:
                return None
            self._open_files += 1
        try:
            return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            with self._lock:
                self._open_files -= 1
            return None

    def _close(self, item: Item) -> None:
        if isinstance(item.source, FileSource) and item.source.close():
            with self._lock:
                self._open_files -= 1

    def _take(self, items: Sequence[Item], handle: Upload) -> None:
        lanes = [self._lane(item) for item in items]
        with self._lock:
            if self._stopping:
                raise ArtifactError(f"{handle.path} is not sent: the run is finished")
            self._handles.add(handle)
            self._left.update(dict.fromkeys(items))
            if items:
                self._start(with_streams=self._streams in lanes)
            for lane, item in zip(lanes, items, strict=True):
                lane.waiting.append(item)
        # A store that is away is not asked again for each file that is logged meanwhile.
        self._tell(self._look)

    def _lane(self, item: Item) -> _Lane:
        if not isinstance(item.source, FileSource):
            return self._streams
        try:
            return self._small if item.source.size <= limits.SINGLE_PUT_BYTES else self._large
        except OSError:
            # It is gone, and will be told so when its turn comes.
            return self._small

    def _start(self, *, with_streams: bool) -> None:
        if self._readers is None:
            self._readers = Readers()
            self._thread = threading.Thread(target=self._run, name="stepstream-artifacts", daemon=True)
            self._thread.start()
        if with_streams:
            self._readers.open_streams()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=BlockingLoop) as runner:
                runner.run(self._main())
        except asyncio.CancelledError:
            return
        except Exception as error:  # noqa: BLE001 - a thread's last words; what is left is noted
            self._notices.once("artifacts", f"uploading ended: {error!r}; what is left: stepstream sync")

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

    def _ended(self, item: Item, error: str | None, *, keep: bool = False) -> None:
        """It is stored, or will not be by this process; with `keep` somebody may send it later."""
        self._close(item)
        with self._lock:
            self._left.pop(item, None)
        if error is not None:
            self._notices.once("artifact failed", f"an artifact was not stored: {error}")
        if item.waits_for is not None:
            item.waits_for.is_kept |= keep
            if item.handle.files_left == 1:
                self._forget(item.waits_for)
        if item.handle.settle(error):
            self._memory.ended(item.handle)
            self._streamed.ended(item.handle)
            self._handles.ended(item.handle)

    def _forget(self, noted: Noted) -> None:
        try:
            noted.forget()
        except OSError as error:
            self._notices.once("artifact note", f"{error}: what was sent stays noted, and may be sent once more")
