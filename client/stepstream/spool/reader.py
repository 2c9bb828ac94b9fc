"""Reads frames back that this process has spooled."""

import contextlib
import os
from pathlib import Path
from typing import Final

from stepstream.errors import SpoolDamaged
from stepstream.spool import segment
from stepstream.spool.names import SegmentName
from stepstream.spool.writer import Location

MAX_OPEN_FILES: Final = 4
"""Requests under way reach into a few segments at the most."""


class SpoolReader:
    """Reads entries by location; a file keeps its identity while it is renamed from `.open` to `.seg`."""

    def __init__(self, directory: Path, run_id: str, writer: int) -> None:
        self._directory, self._run_id, self._writer = directory, run_id, writer
        self._descriptors: dict[int, int] = {}

    def read(self, place: Location) -> bytes:
        """The frame at `place`. Raises SpoolDamaged or OSError; then the next try opens the file anew."""
        try:
            data = os.pread(self._descriptor(place.number), place.length, place.offset)
            if len(data) != place.length:
                raise SpoolDamaged(f"segment {place.number} ends before offset {place.offset + place.length}")
            return segment.decode_entry(data)
        except (OSError, SpoolDamaged):
            self._forget(place.number)
            raise

    def has(self, number: int) -> bool:
        """Whether a segment lies in the directory, in whatever hands; True where that cannot be told."""
        try:
            os.close(self._open(number))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _forget(self, number: int) -> None:
        descriptor = self._descriptors.pop(number, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _descriptor(self, number: int) -> int:
        if number not in self._descriptors:
            while len(self._descriptors) >= MAX_OPEN_FILES:
                os.close(self._descriptors.pop(next(iter(self._descriptors))))
            self._descriptors[number] = self._open(number)
        return self._descriptors[number]

    def _open(self, number: int) -> int:
        # It may be renamed between two tries, and only in this direction.
        for state in ("open", "seg"):
            with contextlib.suppress(FileNotFoundError):
                return os.open(self._path(number, state), os.O_RDONLY | os.O_CLOEXEC)
        # Somebody on another host was told to deliver everything: until that is done the frames are still here.
        claimed = next(self._directory.glob(self._path(number, "claim-*").name), self._path(number, "seg"))
        return os.open(claimed, os.O_RDONLY | os.O_CLOEXEC)

    def _path(self, number: int, state: str) -> Path:
        return self._directory / str(SegmentName(self._run_id, self._writer, number, state))
