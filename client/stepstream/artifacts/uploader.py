"""Takes what is logged, and knows how it stands; what carries it to the store is a thread of its own."""

import io
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from stepstream.artifacts import pending, streams, tree
from stepstream.artifacts.carrier import Carrier
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.handles import Handles
from stepstream.artifacts.item import Item
from stepstream.artifacts.memory import Memory
from stepstream.artifacts.noted import Noted, Notes
from stepstream.artifacts.source import FileSource, StreamSource
from stepstream.artifacts.tree import LocalFile
from stepstream.errors import ArtifactError
from stepstream.notices import Notices
from stepstream.progress import Bar
from stepstream.settings import Settings

MAX_WAITING: Final = 100_000
"""Files: some 3 KB of memory and two files in the spool each. A call that finds fewer is taken, however many it has."""
OPEN_FILES: Final = 128
"""Descriptors held for files that wait; beyond it a file is opened when its turn comes."""
WAIT_S: Final = 0.1


class Uploader:
    """Law: a file that was taken ends stored or failed, or is named by `left()`; a copy goes only when nobody needs it.

    Safe to use from any thread.
    """

    def __init__(self, settings: Settings, run_id: str, rank: int | None, notices: Notices) -> None:
        self._settings = settings
        self._notices = notices
        # Reentrant: a signal handler may log while this very thread holds it.
        self._lock = threading.RLock()
        """Held for what threads share (`_left`, `_open_files`, `_last_ms`, `_stopping`), never during I/O."""
        self._left: dict[Item, None] = {}
        """In the order in which they were logged."""
        self._open_files = 0
        self._last_ms = 0
        self._notes = Notes(settings, run_id, rank, notices)
        self._carrier = Carrier(settings, run_id, rank, notices, self._ended, self._let_go)
        self._stopping = False
        self._handles = Handles()
        self._memory = Memory(settings.buffer_bytes)
        """For what no disk takes."""
        self._streamed = Memory(settings.buffer_bytes)
        """For file objects that keep in memory what they hold."""

    def put_file(self, local: Path, directory: str | None) -> Upload:
        """One file. Raises ArtifactError."""
        logged_at_ms = self._now_ms()
        if not tree.is_file(local):
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
            if progress != moved or now < self._carrier.busy_until:
                moved, moved_at = progress, now
            if now - started >= timeout_s or now - moved_at >= still_s:
                break
            bar.show(self._handles.bytes_sent, self._handles.bytes_total)
        bar.close()
        return self._handles.are_stored

    def left(self) -> tuple[str, ...]:
        """Paths that are neither stored nor failed, and that another process can send."""
        with self._lock:
            return tuple(item.path for item in self._left if _outlives_us(item))

    def unsaved(self) -> tuple[str, ...]:
        """Why those that are neither would not outlive this process."""
        with self._lock:
            paths = [item.path for item in self._left if not _outlives_us(item)]
        return tuple(f"{path}: it was not sent in time, and nothing but this process has it" for path in paths)

    def failed(self) -> tuple[str, ...]:
        """Why files will not be stored by this process."""
        return self._handles.failed()

    @property
    def failures(self) -> int:
        """How many they are: of very many, not each reason is kept."""
        return self._handles.failures

    def hurry(self) -> None:
        """Somebody waits: try at once rather than after the pause."""
        self._carrier.hurry()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; what is left stays noted in the spool."""
        with self._lock:
            self._stopping = True
        self._carrier.stop(timeout_s)
        self._leave_the_rest()
        if self._carrier.is_over:
            # It has let go of what it had; there is more where it ended by itself before that was logged.
            self._let_go()

    def _leave_the_rest(self) -> None:
        """To `stepstream sync`, at once: this process may live on for days, and its thread for a while."""
        with self._lock:
            left = {item.waits_for for item in self._left if item.waits_for is not None}
        for noted in left:
            try:
                noted.leave()
            except OSError as error:
                self._notices.once("artifact note", f"{error}: what is left can be sent once this process has ended")

    def _let_go(self) -> None:
        """This process sends no more: it needs no descriptors, and copies that no note lists are of use to nobody.

        A thread that reads may still do so, for a moment and for nobody.
        """
        with self._lock:
            left = list(self._left)
        for item in left:
            self._close(item)
        for noted in {item.waits_for for item in left if not _outlives_us(item)} - {None}:
            self._forget(noted)

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
        if not files:
            # Nothing that could be settled, and no note that would then go.
            self._take([], handle)
            return handle
        noted = self._notes.write(files, logged_at_ms, kept_bytes=kept_bytes)
        items = []
        try:
            for file in noted.files:
                source = FileSource(Path(file.local), self._descriptor(Path(file.local)), file.version)
                item = self._item(file.path, source, handle, file.content_type, file.logged_at_ms)
                item.waits_for = noted
                items.append(item)
            self._register(items, handle)
        except BaseException:
            # It is not logged, and whoever logs it again must not find what is left of this try.
            for item in items:
                self._close(item)
            self._forget(noted)
            raise
        self._carrier.take(items)
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
        try:
            self._register(items, handle)
        except BaseException:
            self._memory.ended(handle)
            self._streamed.ended(handle)
            raise
        self._carrier.take(items)

    def _register(self, items: Sequence[Item], handle: Upload) -> None:
        """From now on they end, or are left. Raises ArtifactError, and they are none of ours."""
        with self._lock:
            if items and not self._stopping:
                self._start_carrier(items, handle)
            # Only now: a signal handler may have ended the run meanwhile.
            if self._stopping:
                raise ArtifactError(f"{handle.path} is not sent: the run is finished")
            self._handles.add(handle)
            self._left.update(dict.fromkeys(items))

    def _start_carrier(self, items: Sequence[Item], handle: Upload) -> None:
        try:
            self._carrier.start(with_streams=not all(isinstance(item.source, FileSource) for item in items))
        except RuntimeError as error:
            raise ArtifactError(
                f"{handle.path} is not logged: the system gives no thread that sends it ({error}); let this process "
                "have more (ulimit -u, the limits of its container), and log it again"
            ) from error

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


def _outlives_us(item: Item) -> bool:
    """Whether somebody else can send it."""
    return item.waits_for is not None and item.waits_for.is_written
