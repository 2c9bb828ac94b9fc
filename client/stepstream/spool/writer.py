"""Appends one writer's frames to segments in the spool directory.

It survives killed processes, not lost disks or power cuts: what `write` has taken is the kernel's, and nothing waits
for the medium. No locks and no SQLite, whose promises end on network file systems.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from stepstream.process import ProcessId
from stepstream.spool import names, segment
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
        # False while the file may hold more than `_offset` says: such a segment is ended, never appended to.
        self._sound = True
        self._unremoved: set[int] = set()
        self._sizes: dict[int, int] = {}
        self._total = 0
        self._unchecked = FREE_SPACE_CHECK_BYTES

    def append(self, frame: bytes) -> Location | None:
        """Where the frame lies now; None when a bound or the disk refuses it, with the reason in `last_error`."""
        entry = segment.encode_entry(frame)
        try:
            self._check_room(len(entry))
            if not self._can_hold(len(entry)):
                self._roll()
            return self._write(entry)
        except OSError as error:
            self.refused_frames += 1
            self.last_error = str(error)
            return None

    def remove(self, number: int) -> None:
        """Remove a segment, whatever its state; one that is gone already is as good as removed.

        One that the disk will not let go counts on, and is tried again with the next: its frames are delivered, and
        nothing is lost but room.
        """
        self._unremoved.add(number)
        for each in sorted(self._unremoved):
            try:
                self._unlink(each)
            except OSError as error:
                self.last_error = f"segment {each} could not be removed: {error}"
            else:
                self._unremoved.discard(each)
                self._total -= self._sizes.pop(each, 0)

    def close(self, *, keep: bool) -> None:
        """End the segment that is being written. With `keep` all stay, for whoever delivers them; else they go."""
        if self._descriptor is not None:
            self._end_segment()
        for number in list(self._sizes):
            if keep:
                self._leave(number)
            else:
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

    def _can_hold(self, size: int) -> bool:
        """Whether the segment takes it; one that somebody has removed would keep it where nobody finds it."""
        if not self._sound or self._descriptor is None or self._offset + size > self._segment_bytes:
            return False
        try:
            return os.fstat(self._descriptor).st_nlink > 0
        except OSError:  # a file server that no longer knows it
            return False

    def _roll(self) -> None:
        if self._descriptor is not None:
            self._end_segment()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self.number + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path(number, "open"), flags, 0o600)
        self.number, self._offset, self._sound = number, 0, True
        self._sizes[number] = 0
        try:
            self._write(segment.encode_header(self._header(number)))
        except OSError:
            # Without its header nobody could deliver what follows.
            self._end_segment()
            self.remove(number)
            raise

    def _header(self, number: int) -> segment.SegmentHeader:
        return segment.SegmentHeader(
            run_id=self._run_id,
            writer=self._writer,
            number=number,
            owner=self._owner,
            tracking_uri=self._tracking_uri,
            experiment=self._experiment,
            created_ms=self._created_ms,
        )

    def _end_segment(self) -> None:
        """Never raises: the next segment must begin whatever the disk says about this one."""
        assert self._descriptor is not None
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.close(descriptor)
        except OSError as error:  # NFS reports here what it could not write; the reader's checksum will find it
            self.last_error = f"segment {self.number} may be incomplete: {error}"
        try:
            os.replace(self._path(self.number, "open"), self._path(self.number, "seg"))
        except FileNotFoundError:
            pass  # somebody else has claimed or delivered it, which is as good
        except OSError as error:  # it is found by its old name, too
            self.last_error = f"segment {self.number} could not be renamed: {error}"

    def _leave(self, number: int) -> None:
        """Name it so that others may deliver it while this process lives."""
        left = self._path(number, names.left_state(self._owner))
        for state in ("seg", "open"):
            try:
                os.rename(self._path(number, state), left)
            except FileNotFoundError:
                continue  # or somebody else has it already, which is as good
            except OSError as error:  # it is delivered when this process has ended
                self.last_error = f"segment {number} could not be renamed: {error}"
            return

    def _write(self, data: bytes) -> Location:
        assert self._descriptor is not None
        written = 0
        self._sound = False
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:] if written else data)
        except OSError:
            self._take_back(self._descriptor)
            raise
        place = Location(self.number, self._offset, len(data))
        self._offset += len(data)
        self._sizes[self.number] += len(data)
        self._total += len(data)
        self._sound = True
        return place

    def _take_back(self, descriptor: int) -> None:
        """Half an entry would end the segment for every reader; one that must stay makes the next begin another."""
        try:
            os.ftruncate(descriptor, self._offset)
        except OSError as error:
            self.last_error = f"segment {self.number} ends with half an entry: {error}"
        else:
            self._sound = True

    def _unlink(self, number: int) -> None:
        for state in ("seg", "open"):
            with contextlib.suppress(FileNotFoundError):
                self._path(number, state).unlink()
                return
        for path in self.directory.glob(str(SegmentName(self._run_id, self._writer, number, "claim-*"))):
            path.unlink(missing_ok=True)

    def _path(self, number: int, state: str) -> Path:
        return self.directory / str(SegmentName(self._run_id, self._writer, number, state))
