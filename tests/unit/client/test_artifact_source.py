"""What a file is known by: its hash, and the checksums of its parts."""

import base64
import hashlib
import os
import zlib
from pathlib import Path

import pytest

from stepstream.artifacts import source
from stepstream.artifacts.source import BeingWritten, Checks, FileSource, Hashed, SourceChanged
from stepstream_schema import limits

SIZE = limits.SINGLE_PUT_BYTES + 12_345


def written(path: Path, size: int) -> bytes:
    body = os.urandom(size)
    path.write_bytes(body)
    return body


def test_parts_are_summed_while_the_whole_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = written(tmp_path / "large", SIZE)
    file = FileSource(tmp_path / "large")
    found = list(file.hashed(Checks()))[-1]
    assert found == Hashed(size=SIZE, sha256=hashlib.sha256(body).hexdigest(), md5="")

    def reads_again(*_: object) -> None:
        raise AssertionError("a part was read again for its checksum")

    monkeypatch.setattr(source, "digest", reads_again)
    for start in range(0, SIZE, limits.PART_BYTES):
        part = body[start : start + limits.PART_BYTES]
        assert file.digest("crc32", start, len(part)) == base64.b64encode(zlib.crc32(part).to_bytes(4, "big")).decode()


def test_any_other_range_or_checksum_is_read(tmp_path: Path) -> None:
    body = written(tmp_path / "large", SIZE)
    file = FileSource(tmp_path / "large")
    before = file.digest("crc32", 0, limits.PART_BYTES)
    list(file.hashed(Checks()))
    assert file.digest("crc32", 0, limits.PART_BYTES) == before
    for start, size in ((1, 1000), (0, 1000), (limits.PART_BYTES, limits.PART_BYTES - 1)):
        part = body[start : start + size]
        assert file.digest("crc32", start, size) == base64.b64encode(zlib.crc32(part).to_bytes(4, "big")).decode()
        assert file.digest("md5", start, size) == base64.b64encode(hashlib.md5(part).digest()).decode()


def test_a_file_that_grew_is_not_what_was_hashed(tmp_path: Path) -> None:
    written(tmp_path / "growing", SIZE)
    file = FileSource(tmp_path / "growing")
    hashing = file.hashed(Checks())
    next(hashing)
    with (tmp_path / "growing").open("ab") as more:
        more.write(b"x" * 2**21)
    with pytest.raises(SourceChanged):
        list(hashing)


def test_what_is_sent_whole_has_an_md5(tmp_path: Path) -> None:
    body = written(tmp_path / "small", 100_000)
    found = list(FileSource(tmp_path / "small").hashed(Checks(md5=True)))[-1]
    assert isinstance(found, Hashed)
    assert found.md5 == base64.b64encode(hashlib.md5(body).digest()).decode()


def test_a_short_read_moves_no_byte_into_another_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = written(tmp_path / "large", SIZE)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at: preadv(file, [buffers[0][:400_001]], at))
    file = FileSource(tmp_path / "large")
    assert list(file.hashed(Checks()))[-1] == Hashed(size=SIZE, sha256=hashlib.sha256(body).hexdigest(), md5="")
    for start in range(0, SIZE, limits.PART_BYTES):
        part = body[start : start + limits.PART_BYTES]
        assert file.digest("crc32", start, len(part)) == base64.b64encode(zlib.crc32(part).to_bytes(4, "big")).decode()


def test_an_md5_that_nobody_asks_for_is_not_computed(tmp_path: Path) -> None:
    written(tmp_path / "small", 100_000)
    found = list(FileSource(tmp_path / "small").hashed(Checks()))[-1]
    assert isinstance(found, Hashed)
    assert found.md5 == ""


def test_a_file_that_is_being_written_anew_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    written(tmp_path / "state", 100_000)
    file = FileSource(tmp_path / "state")
    os.truncate(tmp_path / "state", 0)
    with pytest.raises(BeingWritten):
        list(file.hashed(Checks(), settled=True))
    os.utime(tmp_path / "state", (1, 1))
    found = list(file.hashed(Checks(), settled=True))[-1]
    assert isinstance(found, Hashed)
    assert found.size == 0
