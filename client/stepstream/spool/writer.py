"""Appends one writer's frames to segments in the spool directory."""

import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from stepstream.process import ProcessId
from stepstream.spool import segment
from stepstream.spool.names import SegmentName

SEGMENT_BYTES: Final = 8 * 2**20
"""Small enough that acknowledged frames leave the disk soon, large enough that a long outage makes few files."""
FREE_SPACE_CHECK_BYTES: Final = 2**20
"""The disk is asked for its free space once for this many bytes written."""


class Location(NamedTuple):
    """Where a frame lies: segment number, offset and length of its entry."""

    number: int
    offset: int
    length: int


class SpoolWriter:
    """Law: when `append` has returned a Location, the frame survives the death of this process."""

    def __init__(
        self,
        directory: Path,
        *,
        run_id: str,
        writer: int,
        owner: ProcessId,
        tracking_uri: str,
        experiment: str,
        created_ms: int,
        max_bytes: int,
        min_free_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.directory = directory
        self.number = 0
        """Number of the segment that is being written; 0 before the first."""
        self.last_error = ""
        self.refused_frames = 0
        self._run_id, self._writer = run_id, writer
        self._owner = owner
        self._tracking_uri, self._experiment, self._created_ms = tracking_uri, experiment, created_ms
        self._max_bytes, self._min_free_bytes, self._segment_bytes = max_bytes, min_free_bytes, segment_bytes
        self._descriptor: int | None = None
        self._offset = 0
        self._sizes: dict[int, int] = {}
        self._total = 0
        self._unchecked = FREE_SPACE_CHECK_BYTES

    def append(self, frame: bytes) -> Location | None:
        """Where the frame lies now; None when a bound or the disk refuses it, with the reason in `last_error`."""
        entry = segment.encode_entry(frame)
        try:
            self._check_room(len(entry))
            if self._descriptor is None or self._offset + len(entry) > self._segment_bytes:
                self._roll()
            return self._write(entry)
        except OSError as error:
            self.refused_frames += 1
            self.last_error = str(error)
            return None

    def remove(self, number: int) -> None:
        """Remove a segment, whatever its state; one that is gone already is as good as removed."""
        self._total -= self._sizes.pop(number, 0)
        for state in ("seg", "open"):
            self._path(number, state).unlink(missing_ok=True)

    def close(self, *, keep: bool) -> None:
        """End the segment that is being written; with `keep` it stays for a later delivery, else it is removed."""
        if self._descriptor is not None:
            self._end_segment()
        if not keep:
            for number in list(self._sizes):
                self.remove(number)

    def _check_room(self, size: int) -> None:
        if self._total + size > self._max_bytes:
            raise OSError(f"the spool holds its {self._max_bytes} bytes")
        self._unchecked += size
        if self._unchecked >= FREE_SPACE_CHECK_BYTES:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.directory).free
            if free < self._min_free_bytes + size:
                raise OSError(f"the disk has {free} bytes left, and {self._min_free_bytes} must stay free")
            self._unchecked = 0

    def _roll(self) -> None:
        if self._descriptor is not None:
            self._end_segment()
        number = self.number + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path(number, "open"), flags, 0o600)
        self.number, self._offset = number, 0
        self._sizes[number] = 0
        header = segment.SegmentHeader(
            run_id=self._run_id,
            writer=self._writer,
            number=number,
            owner=self._owner,
            tracking_uri=self._tracking_uri,
            experiment=self._experiment,
            created_ms=self._created_ms,
        )
        self._write(segment.encode_header(header))

    def _end_segment(self) -> None:
        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor = None
        # Gone when somebody else has claimed or delivered it, which is as good.
        if self._path(self.number, "open").exists():
            os.replace(self._path(self.number, "open"), self._path(self.number, "seg"))

    def _write(self, data: bytes) -> Location:
        assert self._descriptor is not None
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:] if written else data)
        except OSError:
            # Half an entry would end the segment for every reader: take it back, or begin another segment.
            os.ftruncate(self._descriptor, self._offset)
            raise
        place = Location(self.number, self._offset, len(data))
        self._offset += len(data)
        self._sizes[self.number] += len(data)
        self._total += len(data)
        return place

    def _path(self, number: int, state: str) -> Path:
        return self.directory / str(SegmentName(self._run_id, self._writer, number, state))
