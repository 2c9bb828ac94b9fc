"""Event files as bytes, and folders of them."""

import io
import os
import struct
import zlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stepstream.importing.event_folders import files, folders
from stepstream.importing.event_records import Damage, records


def written(*contents: bytes) -> bytes:
    """Any checksum will do."""
    said = b""
    for content in contents:
        length = struct.pack("<Q", len(content))
        said += length + struct.pack("<I", zlib.crc32(length)) + content + struct.pack("<I", zlib.crc32(content))
    return said


def read(said: bytes) -> list[bytes | Damage]:
    return list(records(io.BytesIO(said), len(said), zlib.crc32))


def test_what_was_written_is_read_and_what_is_being_written_is_no_damage() -> None:
    said = written(b"first", b"", b"third")
    assert read(said) == [b"first", b"", b"third"]
    for size in range(len(written(b"first", b"")), len(said)):
        assert read(said[:size]) == [b"first", b""]


def test_damaged_content_hides_no_other_record_and_a_damaged_length_all_that_follow() -> None:
    said = bytearray(written(b"first", b"second", b"third"))
    at = len(written(b"first"))
    said[at + 12] ^= 1
    assert read(bytes(said)) == [b"first", Damage(at, is_last=False), b"third"]
    said[at] ^= 1
    assert read(bytes(said)) == [b"first", Damage(at, is_last=True)]


@given(st.binary(max_size=100))
def test_any_bytes_can_be_read(said: bytes) -> None:
    read(said)
    read(written(b"one") + said)


def test_a_length_that_no_file_has_takes_no_memory() -> None:
    length = struct.pack("<Q", 2**62)
    assert read(length + struct.pack("<I", zlib.crc32(length)) + b"x" * 100) == []


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    errors: list[OSError] = []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "events.out.tfevents.1").touch()
    (tmp_path / "deep.tfevents").mkdir()
    # A name that no disk looks up stands for a folder without permission, which root would read.
    assert list(folders(tmp_path / ("n" * 300), errors.append)) == []
    assert len(errors) == 1
    assert list(folders(tmp_path, errors.append)) == [tmp_path / "a"]
    (tmp_path / "a" / "events.out.tfevents.0").symlink_to(os.devnull)
    assert [file.name[-1] for file in files(tmp_path / "a")] == ["0", "1"]
