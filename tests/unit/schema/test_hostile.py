"""Bytes that were damaged or made to hurt: one documented error, and never more memory than stated."""

import contextlib
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stepstream_schema import batch, columns, limits, objects, records
from stepstream_schema.errors import FrameError
from stepstream_schema.frame import Frame, decode, decode_head, encode
from stepstream_schema.records import Params
from tests.unit.schema.strategies import FRAMES, frame, matrix

MAX_DECODE_BYTES: Final = 4 * limits.MAX_INFLATED_BYTES
"""Columns inflated, their words put in order, steps and times summed up; and the frame's own bytes."""
MAX_REFUSAL_BYTES: Final = limits.MAX_FRAME_BYTES
"""Refusing costs at most what the frame itself weighs: nothing is reserved on the word of a header."""


def peak(act: Callable[[], object]) -> int:
    """The most that `act` had allocated at once, of Python's and NumPy's memory."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refusal(data: bytes, act: Callable[[bytes], object] = decode) -> tuple[str, int]:
    """The code with which `data` is refused, and what it cost in bytes."""
    codes: list[str] = []

    def attempt() -> None:
        with pytest.raises(FrameError) as caught:
            act(data)
        codes.append(caught.value.code)

    cost = peak(attempt)
    return codes[0], cost


def decoded_or_refused(data: bytes) -> None:
    for act in (decode, decode_head, batch.unpack):
        with contextlib.suppress(FrameError):
            act(data)


def message(*raw_records: Any) -> bytes:
    data: bytes = msgpack.packb([1, b"r" * 16, 7, 1, None, [0, 0, 0], list(raw_records)])
    return data


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    decoded_or_refused(data)


JSON_LIKE: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=30,
)


@given(st.lists(JSON_LIKE, max_size=8))
def test_arbitrary_messages_raise_nothing_else(content: list[Any]) -> None:
    decoded_or_refused(msgpack.packb(content))


@given(st.lists(JSON_LIKE, min_size=1, max_size=8), st.integers(0, 70))
def test_arbitrary_records_raise_nothing_else(fields: list[Any], kind: int) -> None:
    decoded_or_refused(message([kind, *fields]))


@given(FRAMES, st.data())
def test_a_flipped_byte_raises_nothing_else(original: Frame, draw: st.DataObject) -> None:
    data = bytearray(encode(original))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    decoded_or_refused(bytes(data))


@given(FRAMES, st.data())
def test_a_truncated_frame_is_always_refused(original: Frame, draw: st.DataObject) -> None:
    data = encode(original)
    cut = data[: draw.draw(st.integers(0, len(data) - 1))]
    with pytest.raises(FrameError) as caught:
        decode(cut)
    assert caught.value.code == "malformed"


@given(FRAMES, FRAMES, st.data())
def test_two_spliced_frames_raise_nothing_else(one: Frame, two: Frame, draw: st.DataObject) -> None:
    head, tail = encode(one), encode(two)
    spliced = head[: draw.draw(st.integers(0, len(head)))] + tail[draw.draw(st.integers(0, len(tail))) :]
    decoded_or_refused(spliced)


# Bombs


def zstd_bomb(inflated_bytes: int, *, state_size: bool) -> bytes:
    """Zeros: some 30,000 of them a byte."""
    params = zstandard.ZstdCompressor(level=3, write_content_size=state_size)
    sink = params.compressobj(size=inflated_bytes) if state_size else params.compressobj()
    chunk = bytes(2**20)
    return b"".join([*(sink.compress(chunk) for _ in range(inflated_bytes // len(chunk))), sink.flush()])


@pytest.mark.parametrize("state_size", [True, False])
def test_a_body_that_inflates_to_a_gigabyte_is_refused_unopened(state_size: bool) -> None:
    bomb = zstd_bomb(2**30, state_size=state_size)
    assert len(bomb) < 2**20
    code, cost = refusal(message([records.MATRIX, "a", 1000, [0, 0, 1], [0, 0, 1], bomb]))
    assert code == "malformed"
    assert cost < MAX_REFUSAL_BYTES


def test_no_bomb_grows_the_process_beyond_the_stated_memory() -> None:
    # What zstd allocates for itself shows only here, in the resident set of a process of its own.
    script = """
import resource, sys
from stepstream_schema.errors import FrameError
from stepstream_schema.frame import decode
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(data)
except FrameError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    for state_size in (True, False):
        bomb = message([records.MATRIX, "a", 1000, [0, 0, 1], [0, 0, 1], zstd_bomb(2**31, state_size=state_size)])
        done = subprocess.run([sys.executable, "-c", script], input=bomb, capture_output=True, check=True)
        grown_bytes = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
        assert grown_bytes < MAX_DECODE_BYTES


def test_a_body_that_holds_more_than_it_states_is_refused() -> None:
    bomb = bytearray(zstd_bomb(2**26, state_size=True))
    parameters = zstandard.get_frame_parameters(bytes(bomb))
    stated = parameters.content_size.to_bytes(4, "little")
    at = bytes(bomb).index(stated)
    bomb[at : at + 4] = (8000).to_bytes(4, "little")
    assert zstandard.get_frame_parameters(bytes(bomb)).content_size == 8000
    code, cost = refusal(message([records.MATRIX, "a", 1000, [0, 0, 1], [0, 0, 1], bytes(bomb)]))
    assert code == "malformed"
    assert cost < MAX_REFUSAL_BYTES


def test_a_skippable_zstd_frame_is_not_a_body() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + bytes(8)
    assert refusal(message([records.MATRIX, "a", 1, [0, 0, 0], [0, 0, 0], skippable]))[0] == "malformed"


@pytest.mark.parametrize("count", [limits.MAX_POINTS_PER_FRAME + 1, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("head", [[0, 0, 1], [1, 0]])
def test_a_header_that_states_huge_counts_is_refused(count: int, head: list[int]) -> None:
    for raw in (
        [records.MATRIX, "a", count, head, head, b""],
        [records.RAGGED, "a", count, head, head, head, b""],
    ):
        code, cost = refusal(message(raw))
        assert code == "too_large"
        assert cost < 2**20


def test_records_share_one_budget() -> None:
    raw = [records.MATRIX, "a", limits.MAX_POINTS_PER_FRAME, [0, 0, 1], [0, 0, 1], zstd_bomb(2**23, state_size=True)]
    assert decode(message(raw)).points == limits.MAX_POINTS_PER_FRAME
    code, cost = refusal(message(raw, raw))
    assert code == "too_large"
    assert cost < MAX_DECODE_BYTES


def test_the_largest_frame_decodes_within_the_stated_memory() -> None:
    data = encode(frame(matrix(1, limits.MAX_POINTS_PER_FRAME)))
    assert peak(lambda: decode(data)) < MAX_DECODE_BYTES


@pytest.mark.parametrize(
    "filler",
    [
        pytest.param(b"\x90", id="empty arrays"),
        pytest.param(b"\x80", id="empty maps"),
        pytest.param(b"\xf0", id="small negative numbers"),
        pytest.param(b"\xc0", id="nils"),
        pytest.param(b"\xa2ab", id="short texts"),
        pytest.param(b"\xcb" + bytes(8), id="floats"),
    ],
)
def test_millions_of_tiny_objects_are_counted_before_they_are_built(filler: bytes) -> None:
    inner = b"\xdc\x10\x00" + filler * 4096
    outer = b"\xdc\x10\x00" + inner * (limits.MAX_FRAME_BYTES // len(inner) - 1)
    for data in (outer, b"\x97" + outer):
        code, cost = refusal(data)
        assert code in {"too_large", "malformed"}
        assert cost < 2**20
        code, cost = refusal(data, batch.unpack)
        assert code == "too_large"
        assert cost < 2**20


@pytest.mark.parametrize("opener", [b"\x91", b"\x97", b"\xdc\x0f\xff", b"\xdd\x00\x00\x0f\xff", b"\x81\xa1a"])
@pytest.mark.parametrize("depth", [500, 1000, 1025, 100_000])
def test_nesting_however_deep_is_refused(opener: bytes, depth: int) -> None:
    for data in (opener * depth, opener * depth + b"\xc0" * depth):
        code, cost = refusal(data)
        assert code in {"malformed", "too_large"}
        assert cost < MAX_REFUSAL_BYTES


@pytest.mark.parametrize("depth", [500, 900, 1020, 2000])
def test_a_well_formed_chain_of_arrays_is_refused_without_recursion(depth: int) -> None:
    chain = b"\x91" * depth + b"\x01"
    assert refusal(chain)[0] == "malformed"
    assert refusal(b"\x97" + chain + bytes(6))[0] == "malformed"
    if depth < 1000:
        kept = b"\x97\x01\xc4\x10" + b"r" * 16 + b"\x07\x01\xc0\x93\x00\x00\x00\x91\x92\x40" + chain
        assert decode(kept).points == 0


@pytest.mark.parametrize(
    "header", [b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
def test_a_header_that_promises_more_than_comes_reserves_nothing(header: bytes) -> None:
    for data in (header, b"\x97" + header, b"\x97\x01" + header * 5):
        code, cost = refusal(data)
        assert code in {"malformed", "too_large"}
        assert cost < 2**20


# Every limit has its outcome


def test_a_frame_larger_than_the_limit_is_refused_unread() -> None:
    code, cost = refusal(bytes(limits.MAX_FRAME_BYTES + 1))
    assert code == "too_large"
    assert cost < 2**16


def test_encode_refuses_a_frame_that_is_too_large_in_bytes() -> None:
    value = "v" * limits.MAX_PARAM_VALUE_CHARS
    many = Params(items=tuple((f"key{i}", value) for i in range(1500)))
    with pytest.raises(FrameError, match="exceeds") as caught:
        encode(frame(many))
    assert caught.value.code == "too_large"


def test_more_records_than_the_limit_are_refused_on_both_sides() -> None:
    beat = [records.HEARTBEAT, 1]
    assert len(decode(message(*[beat] * limits.MAX_RECORDS_PER_FRAME)).records) == limits.MAX_RECORDS_PER_FRAME
    assert refusal(message(*[beat] * (limits.MAX_RECORDS_PER_FRAME + 1)))[0] in {"too_large", "malformed"}
    with pytest.raises(FrameError, match="4097"):
        encode(frame(*[records.Heartbeat(time_ms=1)] * (limits.MAX_RECORDS_PER_FRAME + 1)))


def test_more_items_than_an_array_may_hold_are_refused_on_both_sides() -> None:
    items = tuple((f"k{i}", "v") for i in range(limits.MAX_RECORDS_PER_FRAME // 2))
    assert decode(encode(frame(Params(items=items)))).records == (Params(items=items),)
    with pytest.raises(FrameError, match="4098"):
        encode(frame(Params(items=(*items, ("one", "more")))))


def test_more_objects_than_the_limit_are_refused_on_both_sides() -> None:
    items = tuple((f"k{i}", "v") for i in range(2000))
    with pytest.raises(FrameError) as caught:
        encode(frame(*[Params(items=items)] * 17))
    assert caught.value.code == "too_large"
    flat = [part for item in items for part in item]
    assert refusal(message(*[[records.PARAMS, flat]] * 17))[0] == "too_large"


def test_more_keys_than_the_limit_are_refused_on_both_sides() -> None:
    most = matrix(limits.MAX_KEYS_PER_FRAME, 1)
    assert decode(encode(frame(most))).points == limits.MAX_KEYS_PER_FRAME
    with pytest.raises(FrameError) as caught:
        encode(frame(matrix(limits.MAX_KEYS_PER_FRAME + 1, 1)))
    assert caught.value.code == "too_large"
    with pytest.raises(FrameError) as caught:
        encode(frame(most, matrix(1, 1)))
    assert caught.value.code == "too_large"
    joined = "\0".join(f"k{i}" for i in range(limits.MAX_KEYS_PER_FRAME + 1))
    assert refusal(message([records.MATRIX, joined, 1, [0, 0, 0], [0, 0, 0], b""]))[0] == "too_large"


def test_more_points_than_the_limit_are_refused_on_both_sides() -> None:
    with pytest.raises(FrameError) as caught:
        encode(frame(matrix(1, limits.MAX_POINTS_PER_FRAME + 1)))
    assert caught.value.code == "too_large"
    with pytest.raises(FrameError) as caught:
        encode(frame(matrix(1, limits.MAX_POINTS_PER_FRAME), matrix(1, 1)))
    assert caught.value.code == "too_large"


# Many frames in one body


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_a_batch_comes_back_in_its_order(frames: list[bytes]) -> None:
    assert batch.unpack(batch.pack(frames)) == frames


@pytest.mark.parametrize(
    "body", [b"", b"\xc0", msgpack.packb({"a": b"b"}), msgpack.packb(["text"]), msgpack.packb([[b"x"]])]
)
def test_a_body_that_is_no_array_of_binaries_is_malformed(body: bytes) -> None:
    assert refusal(body, batch.unpack)[0] == "malformed"


def test_a_request_beyond_its_limits_is_too_large() -> None:
    assert len(batch.unpack(batch.pack([b""] * limits.MAX_FRAMES_PER_REQUEST))) == limits.MAX_FRAMES_PER_REQUEST
    assert refusal(batch.pack([b""] * (limits.MAX_FRAMES_PER_REQUEST + 1)), batch.unpack)[0] == "too_large"
    assert refusal(bytes(limits.MAX_REQUEST_BYTES + 1), batch.unpack)[0] == "too_large"


# The count of objects


def objects_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(objects_of, value))
    if isinstance(value, dict):
        return 1 + sum(map(objects_of, value.keys())) + sum(map(objects_of, value.values()))
    return 1


@given(JSON_LIKE)
def test_objects_are_counted_as_msgpack_builds_them(value: Any) -> None:
    data = msgpack.packb(value)
    count = objects_of(value)
    objects.check(data, count)
    if count > 1:
        with pytest.raises(FrameError):
            objects.check(data, count - 1)


@given(st.sampled_from([0, 31, 32, 255, 256, 65_535, 65_536]), st.sampled_from(["text", "binary", "array", "map"]))
def test_every_width_of_length_is_read(length: int, kind: str) -> None:
    made: dict[str, Any] = {
        "text": "x" * length,
        "binary": b"x" * length,
        "array": [0] * length,
        "map": dict.fromkeys(range(length)),
    }
    data = msgpack.packb(made[kind])
    objects.check(data, 2 * length + 1)
    with pytest.raises(FrameError):
        objects.check(data + b"\0", 2 * length + 2)


# Columns


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50))
def test_any_int64_column_survives(values: list[int]) -> None:
    column = np.array(values, np.int64)
    head, body = columns.encode_ints(column)
    assert len(body) == columns.ints_size(head, len(values))
    assert columns.decode_ints(head, len(values), np.frombuffer(body, np.uint8)).tolist() == values


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(1, 6))
def test_an_arithmetic_header_is_exact_or_refused(first: int, stride: int, count: int) -> None:
    exact = [first + stride * i for i in range(count)]
    try:
        got = columns.decode_ints([columns.ARITHMETIC, first, stride], count, np.empty(0, np.uint8)).tolist()
    except FrameError:
        assert not all(-(2**63) <= value < 2**63 for value in exact)
    else:
        assert got == exact


def test_regular_columns_take_nothing_in_the_body() -> None:
    for values in ([5], [1, 2, 3], [7, 7, 7], [9, 6, 3], [-(2**63), 0], [2**63 - 1, 0, -(2**63) + 1]):
        head, body = columns.encode_ints(np.array(values, np.int64))
        strides = {b - a for a, b in pairwise(values)}
        assert (body == b"") == (len(strides) <= 1 and all(-(2**63) <= s < 2**63 for s in strides)), head
