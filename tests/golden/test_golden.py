"""Frames as they were released: every later version must read them, and what it writes must mean the same.

Stored bytes are decoded, never compared with newly encoded ones: zstd may compress otherwise from version to version.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
import pytest

from stepstream_schema import chunk, limits
from stepstream_schema.frame import decode, decode_head, encode
from tests.golden.make import FRAMES
from tests.unit.schema.strategies import content

HERE: Final = Path(__file__).parent
FILES: Final = sorted(HERE.glob("frame_v1_*.bin"))


def stored(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_released_bytes_still_mean_what_they_meant(path: Path) -> None:
    assert content(decode(path.read_bytes())) == stored(path)
    assert decode_head(path.read_bytes()).seq == stored(path)["seq"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_written_today_reads_as_what_was_released(path: Path) -> None:
    released = decode(path.read_bytes())
    assert content(decode(encode(released))) == stored(path)
    assert content(decode(encode(FRAMES[path.stem]))) == stored(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_released_envelope_keeps_its_shape(path: Path) -> None:
    envelope = msgpack.unpackb(path.read_bytes())
    today = msgpack.unpackb(encode(decode(path.read_bytes())))
    assert envelope[0] == 1
    assert envelope[:6] == today[:6]
    for old, new in zip(envelope[6], today[6], strict=True):
        # All but the compressed body, which comes last in a record of metrics.
        assert old[:-1] == new[:-1]


def test_every_frame_that_was_ever_released_is_here() -> None:
    assert {path.stem for path in FILES} == set(FRAMES)
    assert limits.FRAME_VERSION == 1, "a new version needs golden files of its own; those of version 1 stay"


def test_a_chunk_of_version_1_still_means_what_it_meant() -> None:
    """As it lies in databases: by bits, since a float's text would hide a NaN's payload."""
    told = json.loads((HERE / "chunk_v1.json").read_text(encoding="utf-8"))
    for name, columns in told.items():
        points = chunk.decode((HERE / f"{name}.bin").read_bytes())
        assert points.steps.tolist() == columns["steps"]
        assert points.times_ms.tolist() == columns["times_ms"]
        assert points.values.view(np.uint64).tolist() == columns["bits"]
