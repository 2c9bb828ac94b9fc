"""Event files as bytes: records, each with checksums of its length and of its content. Pure."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

LENGTH: Final = struct.Struct("<Q")
CHECKSUM: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Damage:
    """What is no record."""

    at: int
    """The byte where it begins."""
    is_last: bool
    """Its length cannot be trusted: where the next one begins is not known."""


def records(file: BinaryIO, size: int, checksum: Callable[[bytes], int]) -> Iterator[bytes | Damage]:
    """What the first `size` bytes hold. A record that ends beyond them is still being written, and no damage."""
    at = 0
    while at + LENGTH.size + CHECKSUM.size <= size:
        said = file.read(LENGTH.size)
        (expected,) = CHECKSUM.unpack(file.read(CHECKSUM.size))
        if checksum(said) != expected:
            yield Damage(at, is_last=True)
            return
        (length,) = LENGTH.unpack(said)
        end = at + LENGTH.size + length + 2 * CHECKSUM.size
        if end > size:
            return
        content = file.read(length)
        (expected,) = CHECKSUM.unpack(file.read(CHECKSUM.size))
        yield content if checksum(content) == expected else Damage(at, is_last=False)
        at = end
