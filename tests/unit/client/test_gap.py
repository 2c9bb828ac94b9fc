from hypothesis import given
from hypothesis import strategies as st

from stepstream.gap import PATIENCE_ANSWERS, Gap

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200)


@given(ANSWERS)
def test_numbers_are_given_up_only_after_nobody_had_them_twice_while_the_mark_stood_still(answers):
    gap = Gap()
    for place, (mark, owned) in enumerate(answers):
        before = answers[place - 1] if place else None
        alone_twice = not owned and before == (mark, False)
        assert (gap.seen(mark, owned=owned) == "fill") == alone_twice


@given(ANSWERS)
def test_it_is_left_for_later_only_after_the_mark_stood_still_for_long(answers):
    gap = Gap()
    for place, (mark, owned) in enumerate(answers):
        recent = [one for one, _ in answers[max(0, place - PATIENCE_ANSWERS) : place + 1]]
        stood_still = recent == [mark] * (PATIENCE_ANSWERS + 1)
        assert (gap.seen(mark, owned=owned) == "leave") == (owned and stood_still)


def test_a_mark_that_moves_is_waited_for_for_ever():
    gap = Gap()
    assert {gap.seen(mark // 3, owned=True) for mark in range(3000)} == {"wait"}
