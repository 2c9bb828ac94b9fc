from hypothesis import given
from hypothesis import strategies as st

from stepstream.backoff import FIRST_S, MAX_S, Backoff


@given(st.integers(0, 200))
def test_the_longest_wait_doubles_up_to_its_bound(failures):
    backoff = Backoff(lambda low, high: high)
    waits = [backoff.failed() for _ in range(failures + 1)]
    assert waits[-1] == min(MAX_S, FIRST_S * 2**failures)
    assert backoff.failures == failures + 1


def test_success_begins_again():
    backoff = Backoff(lambda low, high: high)
    for _ in range(5):
        backoff.failed()
    backoff.succeeded()
    assert backoff.failed() == FIRST_S


@given(st.floats(0, 300), st.floats(0, 1))
def test_retry_after_is_never_undercut_and_is_spread(retry_after, luck):
    wait = Backoff(lambda low, high: low + (high - low) * luck).failed(retry_after)
    assert wait >= retry_after
    assert wait <= max(retry_after * 1.25, FIRST_S)
