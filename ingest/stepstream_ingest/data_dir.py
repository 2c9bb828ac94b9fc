"""The server's directory: one server at a time, and never one older than the data."""

import fcntl
import json
import os
from pathlib import Path
from typing import Final

from stepstream_ingest.errors import ServerSetupError

FORMAT: Final = 1
"""Raised when a server could no longer read what an older one left here."""


class DataDir:
    """Law: while it is held, no other server on this machine holds it; the kernel lets go when the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> "DataDir":
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServerSetupError(f"the data directory {self.path} cannot be used: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 100, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise ServerSetupError(
                f"the data directory {self.path} is in use by process {holder}; stop that server, or give this one "
                "another --data-dir"
            ) from None
        self._check_format()
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_format(self) -> None:
        stamp = self.path / "format.json"
        try:
            said = stamp.read_text().strip() if stamp.exists() else ""
            # An empty one is what a start leaves that was killed, or lost its power, as it wrote it.
            found = int(json.loads(said)["format"]) if said else 0
        except (OSError, ValueError, TypeError, KeyError) as error:
            self.__exit__()
            raise ServerSetupError(
                f"{stamp} cannot be read ({error}); nothing was changed. If no newer StepStream has used the "
                f"directory, it should say {json.dumps({'format': FORMAT})}"
            ) from error
        if not found:
            _write_whole(stamp, json.dumps({"format": FORMAT}) + "\n")
        if found > FORMAT:
            self.__exit__()
            raise ServerSetupError(
                f"the data directory {self.path} was used by a newer StepStream (format {found}, this one knows "
                f"{FORMAT}); nothing was changed. Start the newer one, or give this one another --data-dir."
            )


def _write_whole(path: Path, text: str) -> None:
    """The file with its text, or as it was before; also after a power cut."""
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
