import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.errors import SpoolDamaged
from stepstream.process import ProcessId
from stepstream.spool import names
from stepstream.spool.names import SegmentName
from stepstream.spool.segment import (
    MAGIC,
    MAX_HEADER_BYTES,
    PREFIX,
    SegmentHeader,
    decode_entry,
    encode_entry,
    encode_header,
    read_entries,
    read_header,
)
from stepstream_schema import limits

OWNER = ProcessId(host="node-1", pid=17, start="4711", boot_id="b-1")
HEADER = SegmentHeader(
    run_id="ab" * 16, writer=2**63 - 1, number=3, owner=OWNER, tracking_uri="http://t", experiment="é", created_ms=5
)
FRAMES = [b"first frame", b"\x00" * 20, b"third"]
frames = st.lists(st.binary(min_size=1, max_size=60), max_size=5)


def segment_of(payloads: list[bytes]) -> bytes:
    return encode_header(HEADER) + b"".join(map(encode_entry, payloads))


def read(data: bytes) -> tuple[list[bytes], int]:
    """The frames that a deliverer gets out of these bytes, and how many bytes it is told that it cannot read."""
    file = io.BytesIO(data)
    got: list[bytes] = []
    try:
        read_header(file)
        for entry in read_entries(file):
            assert data[entry.offset : entry.next_offset] == encode_entry(entry.payload)
            got.append(entry.payload)
    except SpoolDamaged as damage:
        return got, damage.unreadable_bytes
    return got, 0


@given(frames)
def test_what_is_written_is_read_back(payloads):
    file = io.BytesIO(segment_of(payloads))
    assert read_header(file) == HEADER
    assert [entry.payload for entry in read_entries(file)] == payloads


@given(frames)
def test_offsets_join_up_and_end_where_the_segment_ends(payloads):
    file = io.BytesIO(segment_of(payloads))
    read_header(file)
    at = file.tell()
    for entry in read_entries(file):
        assert entry.offset == at
        at = entry.next_offset
    assert at == len(file.getvalue())


@pytest.mark.parametrize("length", range(len(segment_of(FRAMES))))
def test_a_segment_cut_at_any_byte_gives_exactly_the_whole_frames_before_the_cut(length):
    ends = [len(segment_of(FRAMES[:count])) for count in range(len(FRAMES) + 1)]
    whole = sum(end <= length for end in ends[1:])
    got, unreadable = read(segment_of(FRAMES)[:length])
    assert got == FRAMES[:whole]
    if length >= ends[0]:
        assert unreadable == length - ends[whole]


@pytest.mark.parametrize("byte", range(len(segment_of(FRAMES))))
def test_a_flipped_bit_anywhere_never_yields_a_frame_that_was_not_written(byte):
    for bit in range(8):
        data = bytearray(segment_of(FRAMES))
        data[byte] ^= 1 << bit
        got, _ = read(bytes(data))
        if byte < len(encode_header(HEADER)):
            assert got == []
        else:
            assert got == FRAMES[: len(got)]
            assert len(got) < len(FRAMES)


@given(st.data())
def test_any_damage_to_any_frame_leaves_a_prefix_of_what_was_written(data):
    payloads = data.draw(frames)
    clean = segment_of(payloads)
    start = data.draw(st.integers(len(encode_header(HEADER)), len(clean)))
    got, _ = read(clean[:start] + data.draw(st.binary(max_size=80)))
    assert got[: len(payloads)] == payloads[: len(got)]


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_spool_damaged(data):
    read(data)
    read(MAGIC + data)
    read(encode_header(HEADER) + data)


def test_zeros_where_a_write_was_lost_are_damage_and_not_empty_frames():
    got, unreadable = read(segment_of(FRAMES) + bytes(4096))
    assert (got, unreadable) == (FRAMES, 4096)


def test_a_length_beyond_a_frames_limit_is_refused_before_anything_is_read():
    file = io.BytesIO(PREFIX.pack(limits.MAX_FRAME_BYTES + 1, 0) + b"x")
    with pytest.raises(SpoolDamaged, match="it may have"):
        list(read_entries(file))


def test_a_header_beyond_its_limit_is_refused():
    with pytest.raises(SpoolDamaged):
        read_header(io.BytesIO(MAGIC + PREFIX.pack(MAX_HEADER_BYTES + 1, 0)))


@pytest.mark.parametrize(
    "payload",
    [b"{}", b"[]", b"null", b"[" * 60_000, b"\xff", json.dumps({"owner": {}}).encode(), json.dumps({"x": 1}).encode()],
)
def test_a_header_that_is_not_one_is_damage(payload):
    with pytest.raises(SpoolDamaged, match="header cannot be read"):
        read_header(io.BytesIO(MAGIC + encode_entry(payload)))


def test_an_empty_file_and_a_file_that_ends_after_its_magic_are_damage():
    for data in (b"", MAGIC[:3], MAGIC):
        with pytest.raises(SpoolDamaged):
            read_header(io.BytesIO(data))


@given(st.binary(min_size=1, max_size=100), st.data())
def test_one_entry_is_decoded_only_when_it_is_exactly_itself(payload, data):
    entry = encode_entry(payload)
    assert decode_entry(entry) == payload
    cut = data.draw(st.integers(0, len(entry) - 1))
    for damaged in (entry[:cut], entry + b"\0", bytes(len(entry))):
        with pytest.raises(SpoolDamaged):
            decode_entry(damaged)


@given(
    run_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    writer=st.integers(1, 2**63 - 1),
    number=st.integers(1, 10**10),
    state=st.sampled_from(["open", "seg", "claim-17.4711.b_1.node_1", "claim-1..."]),
)
def test_a_segments_name_says_what_it_was_made_of(run_id, writer, number, state):
    name = SegmentName(run_id, writer, number, state)
    assert names.parse(Path("somewhere") / str(name)) == name


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "notes.txt",
        f"{'ab' * 16}-{7:016x}-00000001",
        f"{'ab' * 16}-{7:016x}-00000001.tmp",
        f"{'ab' * 16}-{7:016x}-0000001.seg",
        f"{'ab' * 16}-{7:016x}-٠٠٠٠٠٠٠١.seg",
        f"{'AB' * 16}-{7:016x}-00000001.seg",
        f".{'ab' * 16}-{7:016x}-00000001.seg",
        f"{'ab' * 16}-{7:016x}-00000001.claim-",
        f"{'ab' * 16}-{7:016x}-00000001.seg\n",
    ],
)
def test_other_files_are_no_segments(junk):
    assert names.parse(Path(junk)) is None
