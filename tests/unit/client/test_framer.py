import math
import struct
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepstream.buffer import Note
from stepstream.framer import TARGET_FRAME_POINTS, Framer, key_problem
from stepstream.inputs import MAX_TEXT_CHARS, note
from stepstream_schema import frame as wire
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Params, Ragged, Start, Status, Tags


def framer() -> Framer:
    start = Start(experiment="e", name="n", time_ms=1)
    return Framer(run_id="ab" * 16, writer=7, rank=3, attempt=Attempt(0, 2, 0), start=start)


def points(frames) -> list[tuple[str, int, int, bytes]]:
    found = []
    for sealed in frames:
        for record in wire.decode(sealed.data).records:
            if isinstance(record, Matrix):
                for row, key in enumerate(record.keys):
                    for step, time, value in zip(record.steps, record.times_ms, record.values[row], strict=True):
                        found.append((key, int(step), int(time), struct.pack("<d", value)))
            elif isinstance(record, Ragged):
                keys = np.repeat(np.array(record.keys, object), record.counts)
                for key, step, time, value in zip(keys, record.steps, record.times_ms, record.values, strict=True):
                    found.append((key, int(step), int(time), struct.pack("<d", value)))
    return sorted(found)


values = st.floats(width=64) | st.integers(-(2**60), 2**60) | st.booleans()
rows = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**62),
        st.dictionaries(st.sampled_from([f"k{i}" for i in range(12)]), values, min_size=1, max_size=6),
    ),
    max_size=30,
)


@given(rows)
def test_every_value_stands_in_exactly_one_frame(rows):
    sealed = list(framer().seal(rows, []))
    logged = sorted(
        (key, step, time // 1_000_000, struct.pack("<d", value))
        for step, time, row in rows
        for key, value in row.items()
    )
    assert points(sealed) == logged
    assert [frame.seq for frame in sealed] == list(range(1, len(sealed) + 1))
    assert sum(frame.points for frame in sealed) == len(logged)


def test_the_first_frame_alone_carries_the_start():
    subject = framer()
    sealed = [*subject.seal([(0, 0, {"a": 1.0})], []), *subject.seal([(1, 0, {"a": 1.0})], [])]
    carried = [sum(isinstance(record, Start) for record in wire.decode(one.data).records) for one in sealed]
    assert carried == [1, 0]


def test_a_long_batch_is_cut_into_frames_of_bounded_size():
    batch = [(step, 0, {f"k{i}": 1.0 for i in range(100)}) for step in range(1200)]
    assert [one.points for one in framer().seal(batch, [])] == [TARGET_FRAME_POINTS, TARGET_FRAME_POINTS, 20_000]


def test_a_row_of_more_keys_than_a_frame_holds_is_split():
    wide = {f"key{i}": float(i) for i in range(limits.MAX_KEYS_PER_FRAME + 10)}
    sealed = list(framer().seal([(5, 0, wide)], []))
    assert len(sealed) == 2
    assert {key for key, *_ in points(sealed)} == set(wide)


def test_a_bad_key_is_counted_and_its_neighbours_live():
    subject = framer()
    sealed = list(subject.seal([(0, 0, {"good": 1.0, "": 2.0, "x" * 251: 3.0, "nul\0": 4.0, "\ud800": 5.0})], []))
    assert [key for key, *_ in points(sealed)] == ["good"]
    assert subject.bad_values == 4
    assert subject.last_problem


def test_an_integer_beyond_float64_is_counted_and_its_neighbours_live():
    subject = framer()
    sealed = list(subject.seal([(0, 0, {"good": 1, "huge": 10**400}), (2**63, 0, {"late": 1.0})], []))
    assert [key for key, *_ in points(sealed)] == ["good"]
    assert subject.bad_values == 2


def test_a_time_in_nanoseconds_is_counted_with_a_helpful_word_and_its_neighbours_live():
    subject = framer()
    now_ns = 1_760_000_000_000_000_000
    batch = [(step, now_ns, {"good": 1.0, "too": 2.0}) for step in range(100)]
    sealed = list(subject.seal([*batch, (1, now_ns * 1_000_000, {"x": 1.0, "y": 2.0})], []))
    assert len(points(sealed)) == 200
    assert subject.bad_values == 2
    assert "a timestamp is ms since the epoch" in subject.last_problem


class Contrary:
    """Adds up to a float and is none."""

    def __float__(self) -> float:
        raise RuntimeError("no number today")


class Fickle:
    """A number only when it is looked at alone."""

    def __init__(self) -> None:
        self.asked = 0

    def __float__(self) -> float:
        self.asked += 1
        if self.asked % 2:
            raise RuntimeError("not yet")
        return 1.0


def test_a_number_that_raises_is_counted_and_its_neighbours_live():
    for odd in (Contrary(), Fickle()):
        subject = framer()
        batch = [(step, 0, {"good": 1.0, **({"odd": odd} if step == 5 else {})}) for step in range(9)]
        sealed = list(subject.seal(batch, []))
        assert sorted(step for key, step, *_ in points(sealed) if key == "good") == list(range(9))
        assert subject.bad_values + len(points(sealed)) == 10


def test_a_bad_key_beside_a_bad_step_is_counted_once():
    subject = framer()
    sealed = list(subject.seal([(0, 0, {"good": 1.0, "": 2.0}), (2**63, 0, {"late": 1.0})], []))
    assert [key for key, *_ in points(sealed)] == ["good"]
    assert subject.bad_values == 2


def test_a_dataset_too_large_for_a_frame_is_counted_and_what_stands_beside_it_lives():
    text = "\U0001f600" * MAX_TEXT_CHARS
    described = {"name": "n", "digest": "d", "source": "s" * 60_000, "profile": text, "schema": text}
    subject = framer()
    notes = [note(described, None, {}, 1), Note("param", "lr", "1", 1), Note("status", "", "FINISHED", 9)]
    sealed = list(subject.seal([(0, 0, {"a": 1.0})], notes))
    kinds = [type(record) for one in sealed for record in wire.decode(one.data).records]
    assert kinds == [Start, Params, Matrix, Status]
    assert [one.seq for one in sealed] == [1, 2, 3]
    assert subject.bad_values == 1
    assert "exceeds" in subject.last_problem


def test_params_come_first_and_the_status_last():
    notes = [Note("status", "", "FINISHED", 9), Note("param", "lr", "1", 5), Note("tag", "t", "x", 6)]
    sealed = list(framer().seal([(0, 0, {"a": math.inf})], notes))
    kinds = [type(record) for one in sealed for record in wire.decode(one.data).records]
    assert kinds == [Start, Params, Tags, Matrix, Status]


def test_many_long_params_stay_below_the_limit_of_a_frame():
    notes = [Note("param", f"p{i}", "ü" * limits.MAX_PARAM_VALUE_CHARS, 1) for i in range(3000)]
    sealed = list(framer().seal([], notes))
    assert max(len(one.data) for one in sealed) < limits.MAX_FRAME_BYTES
    kept = [item for one in sealed for r in wire.decode(one.data).records if isinstance(r, Params) for item in r.items]
    assert len(kept) == 3000


def test_the_reasons_against_a_key_name_what_is_wrong():
    assert "text" in key_problem(3)
    assert "NUL" in key_problem("a\0")
    assert "250" in key_problem("k" * 251)
    assert key_problem("loss/train") == ""


def test_wide_rows_whose_keys_change_every_time_keep_no_memory():
    subject = framer()
    size = 20_000
    tracemalloc.start()
    for number in range(12):
        for _ in subject.seal([(number, 0, {f"layer.{number}.{key}": 1.0 for key in range(size)})], []):
            pass
        if number == 4:
            before = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # Names and tuples of seven such rows are 11 MB.
    assert grown < 3 * 2**20


def test_a_status_that_nobody_knows_is_no_success():
    (sealed,) = framer().seal([], [Note("status", "", "success", 1)])
    assert wire.decode(sealed.data).records[1] == Status(status="FAILED", time_ms=1)
