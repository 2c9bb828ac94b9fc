"""The bytes of a spool segment. Pure.

MAGIC, then entries: [length: u32 LE][crc32 of the payload: u32 LE][payload]. The first entry is the header, as JSON;
every other one is an encoded frame. No payload is empty, so that zeros, which some file systems leave where a write was
lost, are damage and not frames.
"""

import json
import os
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
    """The payload, which is not empty, with its length and checksum before it."""
    return PREFIX.pack(len(payload), zlib.crc32(payload)) + payload


def decode_entry(data: bytes) -> bytes:
    """The payload of exactly one entry. Raises SpoolDamaged."""
    if len(data) < PREFIX.size:
        raise SpoolDamaged("the entry's prefix is cut off")
    length, checksum = PREFIX.unpack_from(data)
    payload = data[PREFIX.size :]
    if not payload or len(payload) != length or zlib.crc32(payload) != checksum:
        raise SpoolDamaged("the entry's bytes do not match its checksum")
    return payload


def encode_header(header: SegmentHeader) -> bytes:
    """The start of a segment file."""
    return MAGIC + encode_entry(json.dumps(asdict(header), sort_keys=True).encode())


def read_header(file: BinaryIO) -> SegmentHeader:
    """The header of an open segment; leaves the file at its first frame. Raises SpoolDamaged."""
    if file.read(len(MAGIC)) != MAGIC:
        raise SpoolDamaged("this is not a spool segment")
    payload = _read_payload(file, MAX_HEADER_BYTES)
    if payload is None:
        raise SpoolDamaged("the segment ends before its header")
    try:
        raw = json.loads(payload)
        return SegmentHeader(**(raw | {"owner": ProcessId(**raw["owner"])}))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SpoolDamaged(f"the segment's header cannot be read: {error}") from error


def read_entries(file: BinaryIO) -> Iterator[Entry]:
    """The frames from where `file` stands. Stops at the end; raises SpoolDamaged where the bytes go wrong.

    Law: whatever was cut off or altered, only frames that were written come out, and in their order. Nothing is
    looked for behind the damage: a length that is wrong makes every later boundary a guess.
    """
    offset = file.tell()
    while True:
        try:
            payload = _read_payload(file, limits.MAX_FRAME_BYTES)
        except SpoolDamaged as error:
            left = file.seek(0, os.SEEK_END) - offset
            message = f"{error}; the {left} bytes from there on cannot be read"
            raise SpoolDamaged(message, unreadable_bytes=left, is_cut_off=error.is_cut_off) from None
        if payload is None:
            return
        following = offset + PREFIX.size + len(payload)
        yield Entry(offset, following, payload)
        offset = following


def _read_payload(file: BinaryIO, most: int) -> bytes | None:
    """The next payload; None when the file ends here."""
    prefix = file.read(PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < PREFIX.size:
        raise SpoolDamaged("the last entry is cut off in its prefix", is_cut_off=True)
    length, checksum = PREFIX.unpack(prefix)
    if not 0 < length <= most:
        raise SpoolDamaged(f"an entry states {length} bytes, and it may have 1 to {most}")
    payload = file.read(length)
    if len(payload) < length:
        raise SpoolDamaged("the last entry is cut off", is_cut_off=True)
    if zlib.crc32(payload) != checksum:
        raise SpoolDamaged("an entry does not match its checksum")
    return payload
