"""The bytes of a spool segment. Pure.

MAGIC, then entries: [length: u32 LE][crc32 of the payload: u32 LE][payload]. The first entry is the header, as JSON;
every other one is an encoded frame.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO, Final, NamedTuple

from stepstream.errors import SpoolDamaged
from stepstream.process import ProcessId
from stepstream_schema import limits

MAGIC: Final = b"SSSPOOL1"
PREFIX: Final = struct.Struct("<II")
MAX_HEADER_BYTES: Final = 64 * 2**10
"""A header names two things of at most 500 characters and a URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """Whose frames these are, and where they were meant to go: a segment can be delivered with nothing else known."""

    run_id: str
    writer: int
    number: int
    """1, 2, 3, ... within the writer."""
    owner: ProcessId
    tracking_uri: str
    experiment: str
    created_ms: int


class Entry(NamedTuple):
    """One frame in a segment."""

    offset: int
    next_offset: int
    payload: bytes


def encode_entry(payload: bytes) -> bytes:
    """The payload with its length and checksum before it."""
    return PREFIX.pack(len(payload), zlib.crc32(payload)) + payload


def decode_entry(data: bytes) -> bytes:
    """The payload of exactly one entry. Raises SpoolDamaged."""
    if len(data) < PREFIX.size:
        raise SpoolDamaged("the entry's prefix is cut off")
    length, checksum = PREFIX.unpack_from(data)
    payload = data[PREFIX.size :]
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise SpoolDamaged("the entry's bytes do not match its checksum")
    return payload


def encode_header(header: SegmentHeader) -> bytes:
    """The start of a segment file."""
    return MAGIC + encode_entry(json.dumps(asdict(header), sort_keys=True).encode())


def read_header(file: BinaryIO) -> SegmentHeader:
    """The header of an open segment; leaves the file at its first frame. Raises SpoolDamaged."""
    if file.read(len(MAGIC)) != MAGIC:
        raise SpoolDamaged("this is not a spool segment")
    try:
        raw = json.loads(_read_payload(file, MAX_HEADER_BYTES))
        return SegmentHeader(**(raw | {"owner": ProcessId(**raw["owner"])}))
    except (ValueError, TypeError, KeyError) as error:
        raise SpoolDamaged(f"the segment's header cannot be read: {error}") from error


def read_entries(file: BinaryIO) -> Iterator[Entry]:
    """The frames from where `file` stands. Stops at the end; raises SpoolDamaged where the bytes go wrong.

    Law: whatever was cut off or altered, only frames that were written come out.
    """
    offset = file.tell()
    while True:
        payload = _read_payload(file, limits.MAX_FRAME_BYTES, at_end=None)
        if payload is None:
            return
        following = offset + PREFIX.size + len(payload)
        yield Entry(offset, following, payload)
        offset = following


def _read_payload(file: BinaryIO, most: int, at_end: bytes | None = b"") -> bytes:
    prefix = file.read(PREFIX.size)
    if not prefix:
        return at_end  # type: ignore[return-value]
    if len(prefix) < PREFIX.size:
        raise SpoolDamaged("the last entry is cut off in its prefix")
    length, checksum = PREFIX.unpack(prefix)
    if length > most:
        raise SpoolDamaged(f"an entry states {length} bytes, more than the {most} that may be")
    payload = file.read(length)
    if len(payload) < length:
        raise SpoolDamaged("the last entry is cut off")
    if zlib.crc32(payload) != checksum:
        raise SpoolDamaged("an entry does not match its checksum")
    return payload
