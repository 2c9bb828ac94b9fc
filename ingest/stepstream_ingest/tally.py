"""How many connections each worker has, seen by all of them; the supervisor makes it, the acceptors keep it."""

import mmap
import struct
from pathlib import Path
from typing import Final

_SLOT: Final = struct.Struct("=I")


class Tally:
    """How many connections each worker has: a number a worker, in memory that they share by a file."""

    def __init__(self, path: Path, worker: int) -> None:
        self._worker = worker
        with path.open("r+b") as file:
            self._numbers = mmap.mmap(file.fileno(), 0)
        self.publish(0)

    @staticmethod
    def create(path: Path, workers: int) -> None:
        """For that many workers, none of which has any."""
        path.write_bytes(bytes(_SLOT.size * workers))

    def publish(self, count: int) -> None:
        """Tell the others."""
        _SLOT.pack_into(self._numbers, _SLOT.size * self._worker, count)

    def fewest(self) -> int:
        """Of any worker."""
        return min(int(count) for (count,) in _SLOT.iter_unpack(self._numbers[:]))
