"""Since when everybody who spoke to this server was heard: only from then on is silence somebody's own."""

import os
import struct
import time
from pathlib import Path
from typing import Final

_MOMENT: Final = struct.Struct("=d")


class Hearing:
    """Law: `lasts_s` begins again with each `interrupted` of any worker of this server, and with this worker's start.

    The workers share the moment by a file: a client that one of them turns away is silent to all of them.
    """

    def __init__(self, path: Path | None) -> None:
        self._since = time.monotonic()
        self._file = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def interrupted(self) -> None:
        """Somebody was not heard, or may not have been: turned away, or the database was away."""
        self._since = time.monotonic()
        if self._file is not None:
            os.pwrite(self._file, _MOMENT.pack(self._since), 0)

    def lasts_s(self) -> float:
        """For how long everybody could be heard."""
        return time.monotonic() - max(self._since, self._said_by_others())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _said_by_others(self) -> float:
        said = b"" if self._file is None else os.pread(self._file, _MOMENT.size, 0)
        return float(_MOMENT.unpack(said)[0]) if len(said) == _MOMENT.size else 0.0
