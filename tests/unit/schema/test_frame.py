"""The laws of one frame: round trips, and which bytes and values are refused, and why."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_schema import columns, limits, metrics, records
from stepstream_schema.attempt import Attempt
from stepstream_schema.errors import FrameError
from stepstream_schema.frame import Frame, decode, decode_head, encode, matrix_from_rows
from stepstream_schema.records import Heartbeat, Matrix, Params, Ragged, Start, Status, Tags, Unknown
from tests.unit.schema.strategies import FRAMES, bits_to_floats, content, frame, matrix


def envelope(*raw_records: Any, **changed: Any) -> list[Any]:
    fields = {"version": 1, "run": b"r" * 16, "writer": 7, "seq": 1, "rank": 0, "attempt": [0, 0, 0]} | changed
    return [*fields.values(), list(raw_records)]


def refused(message: Any) -> str:
    data = message if isinstance(message, bytes) else msgpack.packb(message)
    with pytest.raises(FrameError) as caught:
        decode(data)
    assert caught.value.message
    return caught.value.code


def refused_encoding(*body: Any, **changed: Any) -> str:
    with pytest.raises(FrameError) as caught:
        encode(frame(*body, **changed))
    return caught.value.code


@given(FRAMES)
def test_a_frame_comes_back_bit_for_bit(original: Frame) -> None:
    data = encode(original)
    assert content(decode(data)) == content(original)
    assert content(decode(memoryview(data))) == content(original)


@given(FRAMES)
def test_the_head_is_that_of_the_whole_frame(original: Frame) -> None:
    head = decode_head(encode(original))
    assert (head.run_id, head.writer, head.seq) == (original.run_id, original.writer, original.seq)
    assert (head.rank, head.attempt) == (original.rank, original.attempt)


def test_every_kind_of_float_survives() -> None:
    bits = [0x8000000000000000, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF0000000000001, 0xFFF8DEADBEEF0001, 1]
    one = Matrix(
        keys=("x",),
        steps=np.arange(6, dtype=np.int64),
        times_ms=np.zeros(6, np.int64),
        values=bits_to_floats(bits).reshape(1, 6),
    )
    (back,) = decode(encode(frame(one))).records
    assert isinstance(back, Matrix)
    assert back.values.view(np.uint64).ravel().tolist() == bits


def test_a_frame_without_records_is_a_tombstone() -> None:
    assert decode(encode(frame())).records == ()
    assert decode(encode(frame())).points == 0


def test_points_are_counted_over_all_records() -> None:
    assert decode(encode(frame(matrix(2, 3), Heartbeat(time_ms=1), matrix(1, 4)))).points == 10


def test_rows_become_a_matrix_key_by_key() -> None:
    made = matrix_from_rows(("a", "b"), [1, 2], [10, 20], [1.0, 2.0, 3.0, 4.0])
    assert made.values.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert made.values.flags.c_contiguous


def test_the_smallest_frame_stays_small() -> None:
    assert len(encode(frame(matrix(1, 1)))) < 120


# Unknown kinds


def test_an_unknown_optional_kind_is_kept_beside_what_is_known() -> None:
    data = msgpack.packb(envelope([64, "later", {"a": [1.5, True]}], [records.HEARTBEAT, 5], [2**40]))
    assert decode(data).records == (Unknown(kind=64), Heartbeat(time_ms=5), Unknown(kind=2**40))


@pytest.mark.parametrize("kind", [-1, 0, 9, 63])
def test_an_unknown_critical_kind_refuses_the_frame_but_not_its_head(kind: int) -> None:
    data = msgpack.packb(envelope([kind, 1]))
    assert refused(data) == "unknown_record"
    assert decode_head(data).seq == 1


def test_an_unknown_record_cannot_be_written() -> None:
    assert refused_encoding(Unknown(kind=64)) == "unknown_record"


# The envelope


@pytest.mark.parametrize("version", [0, 2, 255, 2**63])
def test_another_version_is_said_to_be_one(version: int) -> None:
    assert refused(envelope(version=version)) == "version"
    assert refused([version, "a shape of the future"]) == "version"


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1], b"1"])
def test_a_version_that_is_no_integer_is_malformed(version: object) -> None:
    assert refused(envelope(version=version)) == "malformed"


@pytest.mark.parametrize(
    "changed",
    [
        {"run": b"r" * 15},
        {"run": "r" * 16},
        {"writer": 0},
        {"writer": -1},
        {"writer": 2**63},
        {"writer": True},
        {"writer": 1.0},
        {"seq": 0},
        {"seq": 2**62},
        {"seq": True},
        {"rank": -1},
        {"rank": 2**31},
        {"rank": False},
        {"rank": "0"},
        {"attempt": [0, 0]},
        {"attempt": [0, 0, 65_536]},
        {"attempt": [-1, 0, 0]},
        {"attempt": [0, True, 0]},
        {"attempt": 0},
    ],
)
def test_an_envelope_field_out_of_its_range_is_malformed(changed: dict[str, object]) -> None:
    assert refused(envelope(**changed)) == "malformed"


@pytest.mark.parametrize(
    "message",
    [
        None,
        1,
        "text",
        [],
        {},
        envelope()[:6],
        [*envelope(), None],
        [*envelope()[:6], None],
        [*envelope()[:6], {"a": 1}],
        envelope(None),
        envelope([]),
        envelope(["x"]),
        envelope([True]),
        envelope([2.0]),
    ],
)
def test_another_shape_is_malformed(message: object) -> None:
    assert refused(message) == "malformed"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(msgpack.packb(msgpack.Timestamp(1, 2)), id="timestamp"),
        pytest.param(msgpack.packb(msgpack.ExtType(5, b"12345")), id="ext"),
        pytest.param(b"\xd4\x01\x00", id="fixext"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x91", id="cut after a header"),
        pytest.param(b"\xdc\x00", id="cut in a header"),
        pytest.param(b"\xc4\xff\x00", id="cut in a binary"),
        pytest.param(msgpack.packb(envelope()) + b"\x00", id="something follows"),
        pytest.param(msgpack.packb(envelope(["\ud800"]), unicode_errors="surrogatepass"), id="lone surrogate"),
        pytest.param(msgpack.packb(envelope([64, {1: 2}])), id="a map with keys that are no text"),
    ],
)
def test_msgpack_that_frames_do_not_use_is_malformed(raw: bytes) -> None:
    assert refused(raw) == "malformed"


# Records


def text_columns(body: bytes = b"", **changed: Any) -> list[Any]:
    """The fields of a matrix of two keys at three regular steps."""
    values = body or records_body(6)
    return [2, changed.get("keys", "a\0b"), changed.get("count", 3), changed.get("steps", [0, 0, 1]), [0, 5, 0], values]


def records_body(words: int) -> bytes:
    return columns.deflate([bytes(8 * words)])


def test_the_matrix_that_the_next_tests_damage_is_whole() -> None:
    assert decode(msgpack.packb(envelope(text_columns()))).points == 6


@pytest.mark.parametrize(
    "raw",
    [
        text_columns(count=0),
        text_columns(count=-1),
        text_columns(count=True),
        text_columns(count=4),
        text_columns(count=3.0),
        text_columns(keys="a\0b\0c"),
        text_columns(keys=b"a\0b"),
        text_columns(steps=[0, 0]),
        text_columns(steps=[0, True, 1]),
        text_columns(steps=[False, 0, 1]),
        text_columns(steps=[2, 0]),
        text_columns(steps=[1, 0]),
        text_columns(steps=[0, 0, 2**63 - 1]),
        text_columns(steps=[0, -(2**63), -1]),
        text_columns(steps=[0, 2**63, 0]),
        text_columns(steps=[0, 0, 2**63]),
        text_columns(steps=[0, [0], 1]),
        text_columns(steps=0),
        text_columns(body=b"not zstd"),
        text_columns(body=records_body(5)),
        text_columns(body=records_body(7)),
        text_columns(body=records_body(6)[:-1]),
        text_columns(body=records_body(6) + b"\0"),
        text_columns()[:-1],
        [*text_columns(), 1],
        [records.RAGGED, "a", 2, [0, 1, 0], [0, 0, 1], [0, 0, 0], records_body(2)],
        [records.RAGGED, "a\0b", 2, [0, 3, -4], [0, 0, 1], [0, 0, 0], records_body(2)],
        [records.RAGGED, "a\0b", 2, [0, 0, 2], [0, 0, 1], [0, 0, 0], records_body(2)],
        [records.RAGGED, "a", True, [0, 1, 0], [0, 0, 1], [0, 0, 0], records_body(1)],
        [records.START, "e", "n", 1, "u"],
        [records.START, "e", "n", True, "u", 0],
        [records.START, "e", None, 1, "u", 0],
        [records.START, "e", "n", 2**63, "u", 0],
        [records.PARAMS],
        [records.PARAMS, []],
        [records.PARAMS, ["a"]],
        [records.PARAMS, ["a", 1]],
        [records.PARAMS, ["a", None]],
        [records.PARAMS, [b"a", "1"]],
        [records.PARAMS, {"a": "1"}],
        [records.TAGS, ["a", "b"]],
        [records.TAGS, ["a", "b", "c"]],
        [records.TAGS, ["a", "b", True]],
        [records.TAGS, ["a", "b", 1.0]],
        [records.TAGS, ["a", "b", 2**63]],
        [records.TAGS, [None, "b", 1]],
        [records.STATUS, "FINISHED"],
        [records.STATUS, 1, 1],
        [records.STATUS, "FINISHED", False],
        [records.HEARTBEAT],
        [records.HEARTBEAT, True],
        [records.HEARTBEAT, 1.5],
    ],
)
def test_a_record_of_the_wrong_shape_is_malformed(raw: list[Any]) -> None:
    assert refused(envelope(raw)) == "malformed"


@pytest.mark.parametrize(
    "raw",
    [
        text_columns(keys="a\0a"),
        text_columns(keys="a\0"),
        text_columns(keys=""),
        text_columns(keys="a\0" + "k" * (limits.MAX_KEY_CHARS + 1)),
        [records.START, "", "n", 1, "u", 0],
        [records.START, "e" * (limits.MAX_NAME_CHARS + 1), "n", 1, "u", 0],
        [records.START, "e", "n\0", 1, "u", 0],
        [records.START, "e", "n", 1, "u" * (limits.MAX_NAME_CHARS + 1), 0],
        [records.START, "e", "n", 1, "u", -1],
        [records.START, "e", "n", 1, "u", limits.MAX_HEARTBEAT_S + 1],
        [records.PARAMS, ["", "1"]],
        [records.PARAMS, ["a\0", "1"]],
        [records.PARAMS, ["k" * (limits.MAX_KEY_CHARS + 1), "1"]],
        [records.PARAMS, ["a", "1" * (limits.MAX_PARAM_VALUE_CHARS + 1)]],
        [records.TAGS, ["a", "1" * (limits.MAX_TAG_VALUE_CHARS + 1), 1]],
        [records.TAGS, ["a", "\0", 1]],
        [records.STATUS, "RESTING", 1],
    ],
)
def test_a_value_that_may_not_be_is_invalid(raw: list[Any]) -> None:
    assert refused(envelope(raw)) == "invalid"


def test_values_at_their_limits_are_taken() -> None:
    text = (
        Start(experiment="e" * limits.MAX_NAME_CHARS, name="", time_ms=0, heartbeat_s=limits.MAX_HEARTBEAT_S),
        Params(items=(("k" * limits.MAX_KEY_CHARS, "v" * limits.MAX_PARAM_VALUE_CHARS),)),
        Tags(items=(("k" * limits.MAX_KEY_CHARS, "v" * limits.MAX_TAG_VALUE_CHARS, 0),)),
    )
    assert decode(encode(frame(*text))).records == text


# What encode refuses


@pytest.mark.parametrize(
    ("body", "changed", "code"),
    [
        ((), {"run_id": "xyz"}, "invalid"),
        ((), {"run_id": "ab"}, "malformed"),
        ((), {"seq": 0}, "malformed"),
        ((), {"writer": 2**64}, "malformed"),
        ((), {"rank": True}, "malformed"),
        ((Params(items=(("a\ud800", "1"),)),), {}, "invalid"),
        ((Params(items=()),), {}, "malformed"),
        ((Params(items=(("", "1"),)),), {}, "invalid"),
        ((Tags(items=(("a", None, 2**63),)),), {}, "malformed"),
        ((Status(status="RESTING", time_ms=1),), {}, "invalid"),  # type: ignore[arg-type]
        ((Start(experiment="", name="", time_ms=0),), {}, "invalid"),
        ((Start(experiment="e", name="", time_ms=0, heartbeat_s=-1),), {}, "invalid"),
    ],
)
def test_encode_refuses_what_decode_would(body: tuple[Any, ...], changed: dict[str, Any], code: str) -> None:
    assert refused_encoding(*body, **changed) == code


@pytest.mark.parametrize("keys", [("a", "a"), ("a", ""), ("a", "b\0c"), ("a", "k" * 251), ("a", "\udfff")])
def test_encode_refuses_keys_that_decode_would(keys: tuple[str, ...]) -> None:
    flat = matrix(2, 1)
    bad = Matrix(keys=keys, steps=flat.steps, times_ms=flat.times_ms, values=flat.values)
    assert refused_encoding(bad) == "invalid"


def test_encode_refuses_shapes_that_do_not_fit() -> None:
    good = matrix(2, 3)
    wide = Matrix(keys=good.keys, steps=good.steps[:2], times_ms=good.times_ms, values=good.values)
    empty = Matrix(keys=good.keys, steps=good.steps[:0], times_ms=good.times_ms[:0], values=good.values[:, :0])
    none = Ragged(
        keys=("a", "b"),
        counts=np.array([2, 0], np.int64),
        steps=good.steps[:2],
        times_ms=good.times_ms[:2],
        values=good.values[0, :2],
    )
    for bad in (wide, empty, none):
        assert refused_encoding(bad) == "invalid"


@pytest.mark.parametrize("dtype", [np.float32, np.int64, ">f8"])
def test_encode_refuses_words_that_are_not_float64(dtype: Any) -> None:
    good = matrix(1, 4)
    bad = Matrix(keys=good.keys, steps=good.steps, times_ms=good.times_ms, values=good.values.astype(dtype))
    assert refused_encoding(bad) == "invalid"


def test_values_that_are_not_contiguous_are_written_as_they_read() -> None:
    values = np.arange(12, dtype=np.float64).reshape(4, 3).T[:, ::2]
    steps = np.arange(4, dtype=np.int64)[::2]
    strided = Matrix(keys=("a", "b", "c"), steps=steps, times_ms=steps, values=values)
    assert content(decode(encode(frame(strided)))) == content(frame(strided))


def test_attempts_sort_as_their_packed_numbers_do() -> None:
    attempts = [Attempt(a, b, c) for a in (0, 1, 65_535) for b in (0, 65_535) for c in (0, 1, 65_535)]
    assert sorted(attempts) == sorted(attempts, key=lambda attempt: attempt.packed)
    assert [Attempt.unpack(attempt.packed) for attempt in attempts] == attempts


@given(st.integers().filter(lambda count: not 0 <= count <= 65_535))
def test_a_restart_count_beyond_16_bits_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="restart count"):
        Attempt(0, count, 0)


@pytest.mark.parametrize("count", [3, 3000])
def test_the_keys_of_a_frame_are_checked_however_often_they_come(count: int) -> None:
    keys = tuple(f"key/{number}" for number in range(count))
    for _ in range(2):
        assert metrics._decode_keys("\0".join(keys)) == keys
        for wrong in ((*keys, keys[0]), (*keys, ""), (*keys, "k" * 251)):
            with pytest.raises(FrameError, match="key"):
                metrics._decode_keys("\0".join(wrong))
    assert (metrics._decode_keys("\0".join(keys)) is metrics._decode_keys("\0".join(keys))) == (count == 3)
