"""Contexts that are used again must not show that they are."""

import os
import threading

import pytest
from zstandard import ZstdCompressor, ZstdDecompressor

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


@pytest.fixture
def fresh(monkeypatch):
    """No context was made before; what has been made since."""
    made = []
    for name in ("_compressors", "_unchecked", "_decompressors"):
        monkeypatch.setattr(zstd, name, [])
    for kind in (ZstdCompressor, ZstdDecompressor):

        def make(kind=kind, **options):
            made.append(kind(**options))
            return made[-1]

        monkeypatch.setattr(zstd, kind.__name__, make)
    return made


def test_a_thread_that_is_alone_needs_one_context_of_each_sort(fresh):
    for _ in range(9):
        for checksum in (True, False):
            assert zstd.decompress(zstd.compress(b"again", checksum=checksum)) == b"again"
    assert len(fresh) == 3


def test_a_context_that_has_raised_is_not_used_again(fresh):
    for _ in range(3):
        with pytest.raises(zstd.ZstdError):
            zstd.decompress(b"no zstd")
    assert len(fresh) == 3
    with pytest.raises(TypeError):
        zstd.compress("a text")
    assert zstd.compress(b"bytes")
    assert len(fresh) == 5


def test_no_more_contexts_are_kept_than_some(fresh):
    gate = threading.Barrier(zstd.MAX_IDLE + 3)

    def work() -> None:
        zstd.compress_each(waited(), checksum=True)

    def waited():
        # Taken out of the list by then, and not yet put back.
        gate.wait()
        yield b"piece"

    threads = [threading.Thread(target=work) for _ in range(zstd.MAX_IDLE + 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fresh) == zstd.MAX_IDLE + 3
    assert len(zstd._compressors) == zstd.MAX_IDLE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_compresses_on(fresh):
    zstd.compress(b"before")
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if zstd.decompress(zstd.compress(b"child")) == b"child" else 1
        finally:
            # Whatever happens, the rest of the tests is the parent's.
            os._exit(code)
    assert zstd.decompress(zstd.compress(b"parent")) == b"parent"
    assert os.waitpid(child, 0)[1] == 0
