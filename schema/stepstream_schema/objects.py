"""Counts the objects of a msgpack message before any of them is built.

msgpack bounds how long one array may be, not how many there are: 8 MiB of the byte 0x90 are eight million lists, over
half a gigabyte of Python objects. Nothing here reads values; payloads of text and binaries are jumped over.
"""

from typing import Final

from stepstream_schema.errors import FrameError


def _table() -> tuple[tuple[int, int, int], ...]:
    # For each first byte: (bytes of a length field, payload bytes a unit of length, children a unit of length).
    # Fixed sizes have no length field; their payload and children stand in the entry itself.
    entries = [(0, 0, 0)] * 256
    for low in range(16):
        entries[0x80 + low] = (0, 0, 2 * low)
        entries[0x90 + low] = (0, 0, low)
    for low in range(32):
        entries[0xA0 + low] = (0, low, 0)
    for tag, payload in {
        0xCA: 4,
        0xCB: 8,
        0xCC: 1,
        0xCD: 2,
        0xCE: 4,
        0xCF: 8,
        0xD0: 1,
        0xD1: 2,
        0xD2: 4,
        0xD3: 8,
    }.items():
        entries[tag] = (0, payload, 0)
    for tag, width in {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.items():
        entries[tag] = (width, 1, 0)
    for tag, width, children in ((0xDC, 2, 1), (0xDD, 4, 1), (0xDE, 2, 2), (0xDF, 4, 2)):
        entries[tag] = (width, 0, children)
    return tuple(entries)


_TABLE: Final = _table()
_NO_EXTENSIONS: Final = frozenset([0xC1, *range(0xC7, 0xCA), *range(0xD4, 0xD9)])
"""The byte that msgpack never uses, and its extension types, which this format never uses."""


def check(data: bytes | memoryview, most: int) -> None:
    """Raise FrameError unless `data` is one msgpack object made of at most `most` objects.

    Law: arrays count when their header is read, so whoever builds the message reserves at most `most` places.
    """
    view = memoryview(data).cast("B")
    position, waiting, total = 0, 1, 1
    end = len(view)
    while waiting:
        if position >= end:
            raise FrameError("malformed", "the message ends early")
        tag = view[position]
        position += 1
        waiting -= 1
        if tag < 0x80 or tag >= 0xE0:
            continue
        if tag in _NO_EXTENSIONS:
            raise FrameError("malformed", "the message holds a type that frames do not use")
        width, payload, children = _TABLE[tag]
        if width:
            length = int.from_bytes(view[position : position + width], "big")
            position += width
            payload *= length
            children *= length
        position += payload
        waiting += children
        total += children
        if total > most:
            raise FrameError("too_large", f"the message is made of more than {most} objects")
    if position != end:
        raise FrameError("malformed", "the message is cut short, or something follows it")
