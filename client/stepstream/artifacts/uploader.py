"""The background thread that carries files to the store, and may wait for hours."""

import asyncio
import contextlib
import itertools
import os
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from stepstream import process
from stepstream.artifacts import pending, tree
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.pending import PendingFile
from stepstream.artifacts.remote import Remote
from stepstream.artifacts.sending import Batch, Item
from stepstream.artifacts.source import FileSource, StreamSource
from stepstream.artifacts.tree import LocalFile
from stepstream.backoff import Backoff
from stepstream.errors import ArtifactError
from stepstream.notices import Notices
from stepstream.progress import Bar
from stepstream.settings import Settings
from stepstream.transport import BlockingLoop, Rejected, Unavailable

BATCH_FILES: Final = 64
OPEN_FILES: Final = 128
"""Descriptors held for files that wait; beyond it a file is opened when its turn comes."""
WAIT_S: Final = 0.1
MAX_TRIES: Final = 4
"""Of a file that changes each time it is sent. One that the store refuses is tried for ever: a signature that is too
old, or a store whose clock is wrong, is nothing against the file."""
REJECTED_RETRY_S: Final = 30.0
"""A wrong token or address is mended by people."""


class Uploader:
    """Law: a file that was taken ends stored or failed, or is named by `left()` and noted in the spool."""

    def __init__(self, settings: Settings, run_id: str, rank: int | None, notices: Notices) -> None:
        self._settings = settings
        self._run_id = run_id
        self._rank = rank
        self._notices = notices
        self._backoff = Backoff(random.SystemRandom().uniform)
        self._waiting: deque[Item] = deque()
        self._under_way: list[Item] = []
        self._batch: Batch | None = None
        self._lock = threading.Lock()
        self._open_files = 0
        self._numbers = itertools.count()
        self._last_ms = 0
        self._token = os.urandom(8).hex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.handles: list[Upload] = []

    def put_file(self, local: Path, directory: str | None) -> Upload:
        """One file. Raises ArtifactError."""
        if not local.is_file():
            raise ArtifactError(f"{local} is no file; log_artifacts takes directories")
        path = tree.joined(directory, local.name)
        return self._put(path, [LocalFile(local=local, path=path)], ())

    def put_directory(self, root: Path, directory: str | None) -> Upload:
        """Every file below a directory."""
        found, refused = tree.files_below(root, directory)
        return self._put((directory or "").strip("/"), found, tuple(refused))

    def put_stream(self, file: IO[Any], path: str) -> Upload:
        """What a file object holds from here on; what is short is read at once."""
        path = tree.joined(None, path)
        source = StreamSource(file)
        if source.is_shorter_than(pending.COPY_BYTES):
            return self.put_bytes(source.next_part(pending.COPY_BYTES), path)
        handle = Upload(path, 1)
        self._take([self._item(path, source, handle)], handle)
        return handle

    def put_bytes(self, body: bytes, path: str) -> Upload:
        """Bytes, by way of a file in the spool. Raises ArtifactError where the disk is full."""
        path = tree.joined(None, path)
        folder = pending.folder(self._settings.spool_dir)
        local = folder / f"{self._token}-{next(self._numbers)}.data"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            local.write_bytes(body)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be kept in {folder} until it is sent: {error.strerror}") from error
        return self._put(path, [LocalFile(local=local, path=path)], (), ours=True)

    def finish(self, *, timeout_s: float, still_s: float) -> bool:
        """Wait until nothing is left, with a bar where somebody looks; whether everything is stored.

        Gives up after `timeout_s`, and earlier when nothing has moved for `still_s`.
        """
        self.hurry()
        bar = Bar("MB of artifacts", scale=10**6)
        started = moved_at = time.monotonic()
        moved = -1
        while any(not handle.done for handle in self.handles):
            now, progress = time.monotonic(), self._moved()
            if progress != moved or self._completing:
                moved, moved_at = progress, now
            if now - started >= timeout_s or now - moved_at >= still_s:
                break
            for handle in [one for one in self.handles if not one.done][:1]:
                handle.wait(min(WAIT_S, timeout_s))
            bar.show(sum(one.bytes_sent for one in self.handles), sum(one.bytes_total for one in self.handles))
        bar.close()
        return all(handle.state == "stored" for handle in self.handles)

    def _moved(self) -> int:
        """Grows as long as something is done."""
        return sum(one.bytes_sent + one.bytes_hashed + one.files - one.files_left for one in self.handles)

    @property
    def _completing(self) -> bool:
        """Whether the server is joining parts, which for a large file takes it as long as reading it does."""
        return self._batch is not None and self._batch.completing

    def left(self) -> tuple[str, ...]:
        """Paths that are neither stored nor failed."""
        return tuple(item.path for item in [*self._under_way, *self._waiting])

    def hurry(self) -> None:
        """Somebody waits, or there is something new: try at once rather than after the pause."""
        loop, event = self._loop, self._event
        if loop is not None and event is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between: nobody is left to tell
                loop.call_soon_threadsafe(event.set)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; what is left stays noted in the spool."""
        self._stopping = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout_s)

    def _put(self, path: str, files: Sequence[LocalFile], refused: tuple[str, ...], *, ours: bool = False) -> Upload:
        handle = Upload(path, len(files), refused=refused)
        for reason in refused:
            self._notices.once("artifact refused", f"a file was not logged: {reason}; see the upload's errors")
        noted = self._note(files, ours=ours)
        items = []
        for file in noted.files:
            source = FileSource(Path(file.local), self._descriptor(Path(file.local)))
            item = self._item(file.path, source, handle, file.content_type, file.logged_at_ms)
            item.waits_for = noted
            items.append(item)
        self._take(items, handle)
        return handle

    def _note(self, files: Sequence[LocalFile], *, ours: bool) -> "_Noted":
        """Write down what is to be sent; where that fails it is sent all the same, as long as this process lives."""
        folder = pending.folder(self._settings.spool_dir)
        token = f"{self._token}-{next(self._numbers)}"
        min_free = self._settings.spool_min_free_bytes
        said = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._notices.once(
                "artifact note", f"artifacts cannot be noted in {folder} ({error}); they are sent anyway"
            )
        for number, file in enumerate(files):
            local = file.local.absolute()
            kept = None if ours else pending.keep(folder, token, number, local, min_free_bytes=min_free)
            said.append(
                PendingFile(
                    path=file.path,
                    local=str(kept or local),
                    content_type=tree.content_type(file.path),
                    logged_at_ms=self._now_ms(),
                    is_ours=ours or kept is not None,
                )
            )
        try:
            note = pending.write(
                folder,
                token,
                tracking_uri=self._settings.tracking_uri,
                run_id=self._run_id,
                rank=self._rank,
                owner=process.current(),
                files=said,
            )
        except OSError as error:
            self._notices.once(
                "artifact note", f"artifacts cannot be noted in {folder} ({error}); they are sent anyway"
            )
            note = folder / f"{token}.json"
        return _Noted(note, tuple(said))

    def _now_ms(self) -> int:
        # Later calls of one process are later, even within a millisecond and when the clock is set back.
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
        if self._open_files >= OPEN_FILES:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        self._open_files += 1
        return descriptor

    def _take(self, items: Sequence[Item], handle: Upload) -> None:
        # Threads may log files at once: a handle that was lost between two of them would not be waited for.
        with self._lock:
            self.handles = [one for one in self.handles if one.state != "stored"] + [handle]
            self._waiting.extend(items)
            if items and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stepstream-artifacts", daemon=True)
                self._thread.start()
        self.hurry()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=BlockingLoop) as runner:
                runner.run(self._main())
        except asyncio.CancelledError:
            return
        except Exception as error:  # noqa: BLE001 - a thread's last words; what is left is noted
            self._notices.once("artifacts", f"uploading ended: {error!r}; what is left: stepstream sync")

    async def _main(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with Remote(self._settings.tracking_uri, self._settings.token) as remote:
            while not self._stopping:
                self._event.clear()
                if self._waiting:
                    await self._send_some(remote)
                else:
                    await self._event.wait()

    async def _send_some(self, remote: Remote) -> None:
        while self._waiting and len(self._under_way) < BATCH_FILES:
            self._under_way.append(self._waiting.popleft())
        batch = self._batch = Batch(remote, self._run_id, self._rank)
        pause_s = 0.0
        try:
            await batch.send(self._under_way)
            self._backoff.succeeded()
            self._notices.over("artifacts away", "artifacts are being uploaded again")
        except Unavailable as error:
            pause_s = self._backoff.failed(error.retry_after_s)
            self._notices.once(
                "artifacts away", f"artifacts cannot be uploaded now ({error}); training goes on, they are tried again"
            )
        except Rejected as error:
            pause_s = REJECTED_RETRY_S
            self._notices.once(
                f"artifacts {error.status}",
                f"artifacts are not taken ({error}); check STEPSTREAM_TRACKING_URI and STEPSTREAM_TOKEN",
            )
        self._settle(batch)
        if batch.refused:
            item, reason = batch.refused[0]
            pause_s = max(pause_s, self._backoff.failed())
            self._notices.once(
                "artifacts refused", f"the store does not take {item.path} ({reason}); it is tried again"
            )
        await self._pause(pause_s)

    def _settle(self, batch: Batch) -> None:
        for item in batch.stored:
            self._ended(item, None)
        for item, reason in [*batch.failed, *batch.unreadable]:
            self._ended(item, reason)
        for item, reason in batch.refused:
            if isinstance(item.source, StreamSource):
                self._ended(item, reason)
        for item, reason in batch.again:
            item.tries += 1
            if item.tries >= MAX_TRIES or isinstance(item.source, StreamSource):
                self._ended(item, f"{reason} (tried {item.tries} times)")
        left, self._under_way = self._under_way, []
        self._waiting.extendleft(reversed(left))

    def _ended(self, item: Item, error: str | None) -> None:
        if item not in self._under_way:
            return
        self._under_way.remove(item)
        if isinstance(item.source, FileSource) and item.source.close():
            self._open_files -= 1
        if error is not None:
            self._notices.once("artifact failed", f"an artifact was not stored: {error}")
        if item.handle.settle(error) and item.waits_for is not None:
            item.waits_for.forget()

    async def _pause(self, seconds: float) -> None:
        if seconds and self._event is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), seconds)


class _Noted:
    """A call's note, and what it lists."""

    def __init__(self, note: Path, files: tuple[PendingFile, ...]) -> None:
        self._note, self.files = note, files

    def forget(self) -> None:
        """Every file of it is settled."""
        pending.forget(self._note, self.files)
