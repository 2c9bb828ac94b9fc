"""zstd, with contexts that are used again: making one takes as long as the work on a small frame.

A context serves one thread at a time. Those that nobody uses wait in a list, whose changes are single steps
of the interpreter, so that no lock of ours is needed, nor held by a thread that a fork has left behind.
"""

from collections.abc import Iterable
from typing import Final, TypeVar

import zstandard
from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError

__all__ = ["ZstdError", "compress", "compress_each", "decompress", "stated_size"]

Context = TypeVar("Context", ZstdCompressor, ZstdDecompressor)

LEVEL: Final = 1
"""Measured on 100 keys x 500 steps: level 3 takes twice the time for 1-2 % fewer bytes."""

MAX_IDLE: Final = 4
"""Contexts that are kept, of each sort: 1.4 MB at most for one. More are made and dropped while more threads work."""

_compressors: Final[list[ZstdCompressor]] = []
_unchecked: Final[list[ZstdCompressor]] = []
_decompressors: Final[list[ZstdDecompressor]] = []


def compress(data: bytes, *, checksum: bool = True) -> bytes:
    """A block that states its inflated size."""
    return compress_each([data], checksum=checksum)[0]


def compress_each(pieces: Iterable[bytes | memoryview], *, checksum: bool = True) -> list[bytes]:
    """A block of each piece."""
    idle = _compressors if checksum else _unchecked
    try:
        context = idle.pop()
    except IndexError:
        context = ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=checksum)
    blocks = [context.compress(piece) for piece in pieces]
    _keep(context, idle)
    return blocks


def stated_size(block: bytes) -> int:
    """How many bytes a block says that it holds: zstandard reserves as much, and no more. Raises ZstdError."""
    size: int = zstandard.get_frame_parameters(block).content_size
    return size


def decompress(block: bytes) -> bytes:
    """What a block holds; ask `stated_size` before, and compare. Raises ZstdError for what is none."""
    try:
        context = _decompressors.pop()
    except IndexError:
        context = ZstdDecompressor()
    data: bytes = context.decompress(block, allow_extra_data=False)
    _keep(context, _decompressors)
    return data


def _keep(context: Context, idle: list[Context]) -> None:
    # One that has raised does not come here. Asked for its length first, the list could grow by a thread's in between.
    idle.append(context)
    del idle[MAX_IDLE:]
