"""What is uploaded: a file, bytes, or a stream that can be read once. Blocking; the uploader's own thread reads.

A file is opened when it is logged, so that removing or replacing it afterwards does no harm; what is small is copied
into the spool, so that it survives the process too.
"""

import base64
import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from stepstream_schema import limits

READ_BYTES: Final = 2**20
SETTLED_NS: Final = 10**9
SEND_BYTES: Final = 256 * 2**10
"""Handed to the network at a time: memory stays flat whatever the file's size."""


class SourceChanged(Exception):
    """The file was written to while it was being sent; it can be logged again."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which state of a file is meant."""

    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """What the server is told of a file."""

    size: int
    sha256: str
    """Hexadecimal."""
    md5: str
    """Base64; only of what is sent whole."""


class FileSource:
    """A regular file, by an open descriptor where there is one."""

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._expected: Version | None = None
        self._crcs: tuple[int, ...] = ()
        """Of the parts, as the whole was hashed: reading a part once more for its checksum costs more than the sum."""
        self._logged = self._version_or_none()

    @property
    def is_being_written(self) -> bool:
        """Whether it was changed since it was logged, and within the last second: half of it may still be to come."""
        now = self._version()
        return now != self._logged and time.time_ns() - now.modified_ns < SETTLED_NS

    @property
    def size(self) -> int:
        """Bytes, now."""
        return self._stat().st_size

    def hashed(self) -> Iterator[Hashed | int]:
        """Reads it all: bytes done so far, again and again, and at the end what was found. Raises SourceChanged."""
        self._expected = self._version()
        size = self._expected.size
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        whole, part_bytes = size <= limits.SINGLE_PUT_BYTES, limits.part_bytes(size)
        crcs = [0] * -(-size // part_bytes)
        with self._open() as file:
            done = 0
            while done < size and (piece := os.pread(file, min(READ_BYTES, size - done), done)):
                sha256.update(piece)
                if whole:
                    md5.update(piece)
                else:
                    part = done // part_bytes
                    crcs[part] = zlib.crc32(piece, crcs[part])
                done += len(piece)
                yield done
        self._crcs = () if whole else tuple(crcs)
        if done != size or self._version() != self._expected:
            raise SourceChanged(f"{self.path} was written to while it was being read")
        yield Hashed(size=size, sha256=sha256.hexdigest(), md5=base64.b64encode(md5.digest()).decode() if whole else "")

    @property
    def unchanged(self) -> bool:
        """Whether it is still what was hashed."""
        return self._expected is not None and self._version() == self._expected

    def digest(self, algorithm: str, start: int, length: int) -> str:
        """Of one part, base64."""
        if algorithm == "crc32" and self._expected is not None and self._crcs:
            number, rest = divmod(start, limits.part_bytes(self._expected.size))
            if not rest and length == min(limits.part_bytes(self._expected.size), self._expected.size - start):
                return _crc32(self._crcs[number])
        return digest(algorithm, self.pieces(start, length, READ_BYTES))

    def pieces(self, start: int, length: int, at_a_time: int = SEND_BYTES) -> Iterator[bytes]:
        """The bytes of one part. Raises SourceChanged where the file is not the one that was hashed."""
        if self._expected is not None and self._version() != self._expected:
            raise SourceChanged(f"{self.path} was written to while it was being sent")
        with self._open() as file:
            end = start + length
            while start < end:
                piece = os.pread(file, min(at_a_time, end - start), start)
                if not piece:
                    raise SourceChanged(f"{self.path} became shorter while it was being sent")
                start += len(piece)
                yield piece

    def close(self) -> bool:
        """Let go of the descriptor; whether there was one."""
        if self._descriptor is None:
            return False
        os.close(self._descriptor)
        self._descriptor = None
        return True

    def _version(self) -> Version:
        stat = self._stat()
        return Version(stat.st_size, stat.st_mtime_ns)

    def _version_or_none(self) -> Version | None:
        try:
            return self._version()
        except OSError:
            return None

    def _stat(self) -> os.stat_result:
        return os.stat(self.path) if self._descriptor is None else os.fstat(self._descriptor)

    def _open(self) -> "_Opened":
        return _Opened(self.path, self._descriptor)


def digest(algorithm: str, pieces: Iterable[bytes]) -> str:
    """`sha256`, `md5` or `crc32` of some bytes, as stores write it: base64, CRC32 with its high byte first."""
    if algorithm == "crc32":
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
        return _crc32(crc)
    found = hashlib.new(algorithm, usedforsecurity=False)
    for piece in pieces:
        found.update(piece)
    return base64.b64encode(found.digest()).decode()


def _crc32(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


class StreamSource:
    """A file object that can be read once; a part at a time is in memory."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        self._waiting = b""
        self._sha256 = hashlib.sha256()
        self.size = 0

    def next_part(self, part_bytes: int) -> bytes:
        """The next part; b'' at the end."""
        self._fill(part_bytes)
        part, self._waiting = self._waiting[:part_bytes], self._waiting[part_bytes:]
        self._sha256.update(part)
        self.size += len(part)
        return part

    def is_shorter_than(self, size: int) -> bool:
        """Whether it ends before so many bytes; reads them."""
        self._fill(size)
        return len(self._waiting) < size

    @property
    def sha256(self) -> str:
        """Of what was taken so far, hexadecimal."""
        return self._sha256.hexdigest()

    def _fill(self, size: int) -> None:
        # A pipe gives what it has: only nothing is the end.
        while len(self._waiting) < size and (piece := self._file.read(size - len(self._waiting))):
            self._waiting += piece.encode() if isinstance(piece, str) else piece


class _Opened:
    """The given descriptor, or one of its own for a while."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path, self._given, self._own = path, descriptor, -1

    def __enter__(self) -> int:
        if self._given is not None:
            return self._given
        self._own = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        return self._own

    def __exit__(self, *_: object) -> None:
        if self._given is None:
            os.close(self._own)
