"""Byte planes and back, on both sides of the length from which it is done plane by plane."""

import numpy as np
import pytest

from stepstream_schema import columns

LENGTHS = [0, 1, columns.MANY_WORDS - 1, columns.MANY_WORDS, 3 * columns.MANY_WORDS + 1]


@pytest.mark.parametrize("length", LENGTHS)
def test_words_come_back_from_their_planes_bit_by_bit(length: int) -> None:
    words = np.random.default_rng(length).integers(-(2**63), 2**63, length)
    planes = np.frombuffer(columns.shuffle(words), np.uint8).reshape(columns.WORD_BYTES, -1)
    assert columns.unshuffle_ints(planes).tolist() == words.tolist()
    assert columns.unshuffle_floats(planes).view(np.int64).tolist() == words.tolist()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", [4, 8])
def test_a_word_has_the_bytes_of_its_place_in_each_plane(length: int, size: int) -> None:
    planes = np.random.default_rng(length).integers(0, 256, (size, length), np.uint8)
    words = columns.interleaved(planes)
    assert words.shape == (length, size)
    assert words.flags.c_contiguous
    assert np.array_equal(words, planes.T)
