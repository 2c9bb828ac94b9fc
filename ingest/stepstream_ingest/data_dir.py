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
        if not stamp.exists():
            stamp.write_text(json.dumps({"format": FORMAT}) + "\n")
            return
        found = json.loads(stamp.read_text())["format"]
        if found > FORMAT:
            self.__exit__()
            raise ServerSetupError(
                f"the data directory {self.path} was used by a newer StepStream (format {found}, this one knows "
                f"{FORMAT}); nothing was changed. Start the newer one, or give this one another --data-dir."
            )
