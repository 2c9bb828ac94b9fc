from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.write.cursor import Cursor
from stepstream_schema.limits import CURSOR_WINDOW_FRAMES


@given(st.permutations(range(1, 60)), st.lists(st.integers(1, 59)))
def test_each_number_is_new_once_in_whatever_order_they_come(order, repeated):
    cursor = Cursor()
    verdicts = [cursor.consume(seq) for seq in order]
    assert verdicts == ["new"] * 59
    assert (cursor.mark, cursor.beyond) == (59, 0)
    assert {cursor.consume(seq) for seq in repeated} <= {"duplicate"}


@given(st.lists(st.integers(1, 200), max_size=300))
def test_it_agrees_with_a_set_and_survives_being_stored(numbers):
    cursor, seen = Cursor(), set()
    for seq in numbers:
        assert cursor.consume(seq) == ("duplicate" if seq in seen else "new")
        seen.add(seq)
        cursor = Cursor.from_row(cursor.mark, cursor.to_bytes())
    assert all(seq in seen for seq in range(1, cursor.mark + 1))
    assert cursor.mark + 1 not in seen


def test_what_is_too_far_ahead_consumes_nothing():
    cursor = Cursor()
    assert cursor.consume(CURSOR_WINDOW_FRAMES + 1) == "ahead"
    assert cursor == Cursor()
    assert cursor.consume(CURSOR_WINDOW_FRAMES) == "new"
    assert cursor.consume(1) == "new"
    assert cursor.consume(CURSOR_WINDOW_FRAMES + 1) == "new"
