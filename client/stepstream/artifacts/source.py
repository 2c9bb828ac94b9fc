"""What is uploaded: a file, bytes, or a stream that can be read once. Blocking; the uploader's own thread reads.

A file is opened when it is logged, so that removing or replacing it afterwards does no harm; what is small is copied
into the spool, so that it survives the process too.
"""

import base64
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from stepstream_schema import limits

READ_BYTES: Final = 2**19
"""Small enough that what was read is still in the processor's cache when it is hashed the second time."""
STREAM_BYTES: Final = 2**20
"""Of a stream, at a time."""
SETTLED_NS: Final = 10**9


class SourceFailed(Exception):
    """This file cannot be sent as it was hashed: neither the store nor other files are concerned."""


class SourceUnreadable(SourceFailed):
    """Its disk does not give it."""


class SourceChanged(SourceFailed):
    """The file was written to while it was being sent; it can be logged again."""


class BeingWritten(SourceChanged):
    """It was changed since it was logged, and within the last second: half of it may still be to come."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which state of a file is meant."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Version":
        """What the file system says."""
        return cls(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """What the server is told of a file."""

    size: int
    sha256: str
    """Hexadecimal."""
    md5: str
    """Base64; empty where nobody asks for it."""


@dataclass(slots=True)
class Checks:
    """What a store checks beside the SHA-256 of files that are sent whole, as far as its answers have told."""

    md5: bool = False
    """Of files that are sent whole."""
    crc32: bool = True
    """Of parts: costs little while the whole is hashed, and another reading afterwards."""


class FileSource:
    """A regular file, by an open descriptor where there is one."""

    def __init__(self, path: Path, descriptor: int | None = None, logged: Version | None = None) -> None:
        """`logged`: as it was when it was logged, where that was not just now."""
        self.path = path
        self._descriptors = [] if descriptor is None else [descriptor]
        """One, until it is closed."""
        self._expected: Version | None = None
        self._crcs: tuple[int, ...] = ()
        """Of the parts, as the whole was hashed: reading a part once more for its checksum costs more than the sum."""
        self._logged = logged or self._version_or_none()

    @property
    def size(self) -> int:
        """Bytes, now."""
        return self._stat().st_size

    def hashed(self, checks: Checks, *, settled: bool = False) -> Iterator[Hashed | int]:
        """Reads it all: bytes done so far, again and again, and at the end what was found.

        Raises SourceChanged, and BeingWritten where it should have `settled`.
        """
        self._expected = self._version()
        # What was just looked at decides, and not a look before: a file that is written anew is empty for a moment.
        is_fresh = time.time_ns() - self._expected.modified_ns < SETTLED_NS
        if settled and is_fresh and self._expected != self._logged:
            raise BeingWritten(f"{self.path} is being written to")
        self._crcs = ()
        size = self._expected.size
        whole, part_bytes = size <= limits.SINGLE_PUT_BYTES, limits.part_bytes(size)
        sha256 = hashlib.sha256()
        md5 = hashlib.md5(usedforsecurity=False) if whole and checks.md5 else None
        crcs = [0] * -(-size // part_bytes) if checks.crc32 and not whole else []
        done = 0
        for done, piece in self._read(size):
            sha256.update(piece)
            if md5 is not None:
                md5.update(piece)
            if crcs:
                part = (done - 1) // part_bytes
                crcs[part] = zlib.crc32(piece, crcs[part])
            yield done
        if done != size or self._version() != self._expected:
            raise SourceChanged(f"{self.path} was written to while it was being read")
        self._crcs = tuple(crcs)
        yield Hashed(size=size, sha256=sha256.hexdigest(), md5="" if md5 is None else _base64(md5.digest()))

    @property
    def unchanged(self) -> bool:
        """Whether it is still what was hashed."""
        return self._expected is not None and self._version() == self._expected

    @property
    def was_rewritten(self) -> bool:
        """Whether what was hashed is a later state than the one that was logged."""
        return None not in (self._logged, self._expected) and self._logged != self._expected

    def check(self) -> None:
        """Raise SourceChanged where it is not what was hashed."""
        if self._expected is not None and self._version() != self._expected:
            raise SourceChanged(f"{self.path} was written to while it was being sent")

    def digest(self, algorithm: str, start: int, length: int) -> str:
        """Of one part, base64. Raises SourceChanged."""
        if algorithm == "crc32" and self.knows(start, length):
            assert self._expected is not None
            return _crc32(self._crcs[start // limits.part_bytes(self._expected.size)])
        self.check()
        return digest(algorithm, (piece for _, piece in self._read(length, start)))

    def knows(self, start: int, length: int) -> bool:
        """Whether this is a part whose CRC32 was found while the whole was hashed."""
        if self._expected is None or not self._crcs:
            return False
        part_bytes = limits.part_bytes(self._expected.size)
        return start % part_bytes == 0 and length == min(part_bytes, self._expected.size - start)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor to read from, while it is what was hashed. Raises SourceChanged, OSError."""
        self.check()
        held = self._descriptor
        if held is not None:
            yield held
            return
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self) -> bool:
        """Let go of the descriptor; whether there was one. Once, whichever threads and signal handlers do so."""
        try:
            os.close(self._descriptors.pop())
        except IndexError:
            return False
        return True

    @property
    def _descriptor(self) -> int | None:
        return next(iter(self._descriptors), None)

    def _version(self) -> Version:
        return Version.of(self._stat())

    def _version_or_none(self) -> Version | None:
        try:
            return self._version()
        except OSError:
            return None

    def _stat(self) -> os.stat_result:
        held = self._descriptor
        return os.stat(self.path) if held is None else os.fstat(held)

    def _read(self, length: int, start: int = 0) -> Iterator[tuple[int, memoryview]]:
        """Bytes read so far and the last of them, which are overwritten by the next; ends early where the file does."""
        buffer, done = memoryview(bytearray(min(READ_BYTES, length))), 0
        with self.opened() as file:
            while done < length:
                # Whatever comes short, no piece lies across the border of a part.
                room = min(READ_BYTES - done % READ_BYTES, length - done)
                count = os.preadv(file, [buffer[:room]], start + done)
                if not count:
                    return
                done += count
                yield done, buffer[:count]


def digest(algorithm: str, pieces: Iterable[bytes | bytearray | memoryview]) -> str:
    """`sha256`, `md5` or `crc32` of some bytes, as stores write it: base64, CRC32 with its high byte first."""
    if algorithm == "crc32":
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
        return _crc32(crc)
    found = hashlib.new(algorithm, usedforsecurity=False)
    for piece in pieces:
        found.update(piece)
    return _base64(found.digest())


def _crc32(crc: int) -> str:
    return _base64(crc.to_bytes(4, "big"))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class BytesSource:
    """Bytes in memory: a stream that turned out to be short."""

    def __init__(self, body: bytearray) -> None:
        self.body = body

    def hashed(self) -> Hashed:
        """At once: it is short."""
        return Hashed(size=len(self.body), sha256=hashlib.sha256(self.body).hexdigest(), md5="")

    def digest(self, algorithm: str, start: int, length: int) -> str:
        """Of a part, base64."""
        return digest(algorithm, [memoryview(self.body)[start : start + length]])


class StreamSource:
    """A file object that can be read once; a part at a time is in memory."""

    def __init__(self, file: IO[Any], first: bytes = b"") -> None:
        self._file = file
        self._waiting = bytearray(first)
        self._sha256 = hashlib.sha256()
        self.size = 0

    def fill(self, count: int, go_on: Callable[[], None]) -> bool:
        """Read on until `count` bytes are here; False where the stream ends before.

        `go_on` may raise between two pieces. Raises whatever the file object does.
        """
        while len(self._waiting) < count:
            piece = self._read(min(STREAM_BYTES, count - len(self._waiting)))
            if not piece:
                return False
            self._waiting += piece
            go_on()
        return True

    def next_part(self, part_bytes: int, go_on: Callable[[], None]) -> bytearray:
        """The next part; it is shorter, or empty, only at the end."""
        self.fill(part_bytes, go_on)
        part, self._waiting = self._waiting, self._waiting[part_bytes:]
        del part[part_bytes:]
        self._sha256.update(part)
        self.size += len(part)
        return part

    @property
    def sha256(self) -> str:
        """Of what was read so far, hexadecimal."""
        return self._sha256.hexdigest()

    def _read(self, count: int) -> bytes:
        piece = self._file.read(count)
        if isinstance(piece, str):
            return piece.encode()
        if piece is None:
            raise BlockingIOError("it has nothing to read now; a stream that is logged must block until it has")
        return bytes(piece)
