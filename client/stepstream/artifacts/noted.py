"""What is to be sent, written down in the spool: whoever comes after a process that was killed sends it."""

import contextlib
import errno
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from stepstream import process
from stepstream.artifacts import pending, tree
from stepstream.artifacts.pending import PendingCall, PendingFile
from stepstream.artifacts.source import Version
from stepstream.artifacts.tree import LocalFile
from stepstream.notices import Notices
from stepstream.settings import Settings


class Noted:
    """A call's note, and what it lists."""

    def __init__(
        self, note: Path, files: tuple[PendingFile, ...], gone: Callable[[], None], *, is_written: bool
    ) -> None:
        self._note, self.files, self._gone = note, files, gone
        self.is_written = is_written
        """It lies in the spool, so that others can send what it lists."""
        self.is_kept = False
        """Some of it may be sent later, by `stepstream sync`."""
        # Reentrant: a signal handler may end the run while this very thread leaves it.
        self._lock = threading.RLock()
        self._is_left = self._is_gone = False

    def forget(self) -> None:
        """Every file of it is settled. Raises OSError."""
        if self.is_kept and self.is_written:
            self.leave()
            return
        with self._lock:
            # Once it is left somebody may be reading its copies: who does finds them stored, and removes them.
            if self._is_left or self._is_gone:
                return
            self._is_gone = True
            pending.forget(self._note, self.files)
            self._gone()

    def leave(self) -> None:
        """This process will not send it. Raises OSError."""
        with self._lock:
            if self._is_left or not self.is_written:
                return
            try:
                pending.leave(self._note)
            except FileNotFoundError:
                # A signal handler has done it meanwhile, by way of the same draft.
                if not self._is_left:
                    raise
            self._is_left = True


def _version(sent: Path) -> Version | None:
    try:
        return Version.of(sent.stat())
    except OSError:
        return None  # it is gone, and will be told so when its turn comes


class Notes:
    """Writes one for each call.

    Law: what a note lists lies where it says, in a copy or where the user has it, until every file of it is settled.
    Notes and copies together are no more than STEPSTREAM_SPOOL_MAX_BYTES.
    """

    def __init__(self, settings: Settings, run_id: str, rank: int | None, notices: Notices) -> None:
        self._settings = settings
        self._run_id = run_id
        self._rank = rank
        self._notices = notices
        self.folder = pending.folder(settings.spool_dir)
        """Where they lie, and copies of what they list."""
        self._numbers = itertools.count()
        self._token = os.urandom(8).hex()
        # Reentrant: a signal handler may log while this very thread holds it.
        self._lock = threading.RLock()
        self.held = 0
        """Bytes of notes and copies; what has a second name (a hard link) takes no room of its own."""

    def keep(self, body: bytes) -> Path:
        """Put bytes into a file that a note can list. Raises OSError."""
        local = self.folder / f"{self._token}-{next(self._numbers)}.data"
        self._reserve(len(body))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < self._settings.spool_min_free_bytes:
                raise OSError(errno.ENOSPC, "less than STEPSTREAM_SPOOL_MIN_FREE_BYTES is free")
            local.write_bytes(body)
        except OSError:
            self._give_back(len(body))
            with contextlib.suppress(OSError):
                local.unlink(missing_ok=True)
            raise
        return local

    def write(self, files: Sequence[LocalFile], logged_at_ms: int, *, kept_bytes: int | None = None) -> Noted:
        """Write down what is to be sent; where that fails it is sent all the same, as long as this process lives.

        With `kept_bytes` the files are what `keep` has made, of so many bytes.
        """
        folder = self.folder
        token = f"{self._token}-{next(self._numbers)}"
        is_kept, held = kept_bytes is not None, kept_bytes or 0
        said = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._not_noted(error)
        for number, file in enumerate(files):
            local = file.local.absolute()
            kept, copied = (None, 0) if is_kept else self._copy(token, number, local)
            held += copied
            sent = kept or Path(os.path.realpath(local))
            said.append(
                PendingFile(
                    path=file.path,
                    local=str(sent),
                    content_type=tree.content_type(file.path),
                    logged_at_ms=logged_at_ms,
                    is_ours=is_kept or kept is not None,
                    version=_version(sent),
                )
            )
        note = PendingCall(
            note=folder / f"{token}.json",
            tracking_uri=self._settings.tracking_uri,
            run_id=self._run_id,
            rank=self._rank,
            owner=process.current(),
            files=tuple(said),
        )
        text = pending.text(note)
        is_written = False
        try:
            self._reserve(len(text))
            held += len(text)
            pending.replace_note(note.note, text)
            is_written = True
        except OSError as error:
            self._not_noted(error)
        return Noted(note.note, note.files, lambda: self._give_back(held), is_written=is_written)

    def _copy(self, token: str, number: int, local: Path) -> tuple[Path | None, int]:
        """A copy, or another name, of what the user may remove; and how many bytes that takes."""
        size = pending.copied_bytes(local)
        try:
            self._reserve(size)
        except OSError as error:
            self._notices.once(
                "artifact copies",
                f"files that are logged now are not copied ({error}); they are read when their turn comes",
            )
            return None, 0
        min_free = self._settings.spool_min_free_bytes
        kept = pending.keep(self.folder, token, number, local, min_free_bytes=min_free)
        if kept is None:
            self._give_back(size)
            return None, 0
        return kept, size

    def _not_noted(self, error: OSError) -> None:
        self._notices.once(
            "artifact note", f"artifacts cannot be noted in {self.folder} ({error}); they are sent anyway"
        )

    def _reserve(self, size: int) -> None:
        most = self._settings.spool_max_bytes
        with self._lock:
            if size and self.held + size > most:
                raise OSError(
                    errno.ENOSPC, f"artifacts that wait have {self.held} of STEPSTREAM_SPOOL_MAX_BYTES {most}"
                )
            self.held += size

    def _give_back(self, size: int) -> None:
        with self._lock:
            self.held -= size
