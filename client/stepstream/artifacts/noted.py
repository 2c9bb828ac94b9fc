"""What is to be sent, written down in the spool: whoever comes after a process that was killed sends it."""

import contextlib
import errno
import itertools
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from stepstream import process
from stepstream.artifacts import pending, tree
from stepstream.artifacts.pending import PendingFile
from stepstream.artifacts.tree import LocalFile
from stepstream.notices import Notices
from stepstream.settings import Settings


class Noted:
    """A call's note, and what it lists."""

    def __init__(self, note: Path, files: tuple[PendingFile, ...]) -> None:
        self._note, self.files = note, files
        self.is_kept = False
        """Some of it may be sent later, by `stepstream sync`."""
        self._lock = threading.Lock()
        self._is_left = False

    def forget(self) -> None:
        """Every file of it is settled. Raises OSError."""
        if self.is_kept:
            self.leave()
            return
        with self._lock:
            # Once it is left somebody may be reading its copies: who does finds them stored, and removes them.
            if not self._is_left:
                pending.forget(self._note, self.files)

    def leave(self) -> None:
        """This process will not send it. Raises OSError."""
        with self._lock:
            if not self._is_left:
                pending.leave(self._note)
                self._is_left = True


class Notes:
    """Writes one for each call.

    Law: what a note lists lies where it says, in a copy or where the user has it, until every file of it is settled.
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

    def keep(self, body: bytes) -> Path:
        """Put bytes into a file that a note can list. Raises OSError."""
        local = self.folder / f"{self._token}-{next(self._numbers)}.data"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < self._settings.spool_min_free_bytes:
                raise OSError(errno.ENOSPC, "less than STEPSTREAM_SPOOL_MIN_FREE_BYTES is free")
            local.write_bytes(body)
        except OSError:
            with contextlib.suppress(OSError):
                local.unlink(missing_ok=True)
            raise
        return local

    def write(self, files: Sequence[LocalFile], logged_at_ms: int, *, ours: bool) -> Noted:
        """Write down what is to be sent; where that fails it is sent all the same, as long as this process lives."""
        folder = self.folder
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
                    local=str(kept or os.path.realpath(local)),
                    content_type=tree.content_type(file.path),
                    logged_at_ms=logged_at_ms,
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
        return Noted(note, tuple(said))
