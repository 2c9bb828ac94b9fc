"""Contexts that are used again must not show that they are."""

import threading

import pytest
from zstandard import ZstdCompressor

from stepstream_schema import zstd

PIECES = [bytes([number]) * (1000 * number) + number.to_bytes(4, "big") for number in range(1, 60)]


def test_a_block_states_its_size_and_holds_what_was_compressed():
    for checksum in (True, False):
        blocks = zstd.compress_each(PIECES, checksum=checksum)
        assert [zstd.stated_size(block) for block in blocks] == [len(piece) for piece in PIECES]
        assert [zstd.decompress(block) for block in blocks] == PIECES


def test_only_a_block_with_a_checksum_tells_that_a_byte_has_changed():
    piece = bytes(range(256))  # so mixed that it is kept as it is
    for checksum in (True, False):
        block = bytearray(zstd.compress(piece, checksum=checksum))
        block[20] ^= 1
        if checksum:
            with pytest.raises(zstd.ZstdError):
                zstd.decompress(bytes(block))
        else:
            assert zstd.decompress(bytes(block)) != piece


@pytest.mark.parametrize("damaged", [b"", b"no zstd", zstd.compress(b"x" * 99)[:-1], zstd.compress(b"x") + b"more"])
def test_what_is_no_block_is_refused_and_the_next_one_is_read(damaged):
    with pytest.raises(zstd.ZstdError):
        zstd.decompress(damaged)
    assert zstd.decompress(zstd.compress(b"good")) == b"good"


def test_threads_at_once_each_get_their_own():
    gate = threading.Barrier(8)
    came = []

    def work() -> None:
        gate.wait()
        came.extend(zstd.decompress(block) for _ in range(20) for block in zstd.compress_each(PIECES))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came) == sorted(PIECES * 160)


def test_a_thread_that_is_alone_needs_one_context(monkeypatch):
    made = []
    monkeypatch.setattr(zstd, "_compressors", [])

    def make(**options):
        made.append(ZstdCompressor(**options))
        return made[-1]

    monkeypatch.setattr(zstd, "ZstdCompressor", make)
    assert [zstd.compress(b"again") for _ in range(9)] == [zstd.compress(b"again")] * 9
    assert len(made) == 1
