import random

from hypothesis import given
from hypothesis import strategies as st

from stepstream.backoff import Backoff
from stepstream.delivery import (
    AHEAD_WAIT_S,
    GATHER_BYTES,
    GATHER_S,
    LARGER_AGAIN_S,
    MAX_IN_FLIGHT,
    MAX_REQUEST_BYTES,
    MAX_REQUEST_FRAMES,
    Delivery,
    Pending,
)


def pending(seq: int, size: int = 10) -> Pending:
    return Pending(seq=seq, points=1, size=size, place=b"")


def delivery() -> Delivery:
    return Delivery(Backoff(lambda low, high: high))


def test_frames_travel_together_in_order():
    subject = delivery()
    for seq in range(1, 6):
        subject.add(pending(seq))
    assert [frame.seq for frame in subject.due(0.0).frames] == [1, 2, 3, 4, 5]
    assert subject.due(0.0) is None


def test_a_request_is_bounded_in_frames_and_bytes():
    subject = delivery()
    for seq in range(1, MAX_REQUEST_FRAMES + 2):
        subject.add(pending(seq))
    assert len(subject.due(0.0).frames) == MAX_REQUEST_FRAMES
    subject = delivery()
    for seq in range(1, 4):
        subject.add(pending(seq, size=MAX_REQUEST_BYTES // 2 + 1))
    assert len(subject.due(0.0).frames) == 1


def test_few_requests_are_in_flight():
    subject = delivery()
    for seq in range(1, 100):
        subject.add(pending(seq, size=MAX_REQUEST_BYTES))
    assert sum(subject.due(0.0) is not None for _ in range(10)) == MAX_IN_FLIGHT


def test_a_trickle_travels_together_and_what_comes_after_a_pause_at_once():
    subject = delivery()
    subject.add(pending(1))
    first = subject.due(10.0)
    for seq, now in ((2, 10.3), (3, 10.6)):
        subject.add(pending(seq))
        assert subject.due(now) is None
        assert subject.wait_s(now) == 10.0 + GATHER_S - now
    subject.answered(first, ahead=[], now=10.7)
    assert [frame.seq for frame in subject.due(10.0 + GATHER_S).frames] == [2, 3]
    subject.add(pending(4))
    assert [frame.seq for frame in subject.due(10.0 + 2 * GATHER_S).frames] == [4]
    assert subject.wait_s(10.0 + 2 * GATHER_S) is None


def test_much_or_somebody_who_waits_or_what_came_at_once_is_not_kept_for_more():
    subject = delivery()
    subject.add(pending(1))
    subject.due(0.0)
    subject.add(pending(2, size=GATHER_BYTES))
    assert [frame.seq for frame in subject.due(0.1).frames] == [2]
    subject.add(pending(3))
    assert subject.due(0.2) is None
    subject.hurry()
    third = subject.due(0.2)
    assert [frame.seq for frame in third.frames] == [3]
    subject.answered(third, ahead=[], now=0.3)
    subject.hurry()
    subject.add(pending(4, size=MAX_REQUEST_BYTES))
    subject.add(pending(5))
    subject.answered(subject.due(0.3), ahead=[], now=0.3)
    assert [frame.seq for frame in subject.due(0.3).frames] == [5]


def test_what_has_to_be_sent_again_takes_with_it_what_is_new():
    subject = delivery()
    subject.add(pending(1))
    first = subject.due(0.0)
    subject.add(pending(2))
    assert subject.due(0.1) is None
    subject.answered(first, ahead=[0], now=0.1)
    assert [frame.seq for frame in subject.due(0.1 + AHEAD_WAIT_S).frames] == [1, 2]


def test_one_request_probes_a_server_that_is_away():
    subject = delivery()
    for seq in range(1, 10):
        subject.add(pending(seq, size=MAX_REQUEST_BYTES))
    wait = subject.failed(subject.due(0.0), now=0.0)
    assert subject.due(wait / 2) is None
    assert subject.wait_s(wait / 2) == wait / 2
    assert subject.due(wait).frames[0].seq == 1
    assert subject.due(wait) is None


def test_somebody_who_waits_for_the_end_cuts_our_own_pause_short_and_not_the_servers():
    subject = delivery()
    subject.add(pending(1))
    subject.failed(subject.due(0.0), now=0.0, least_s=100.0)
    subject.hurry()
    wait = subject.failed(subject.due(0.0), now=0.0, told_s=10.0)
    subject.hurry()
    assert wait >= 10.0
    assert subject.due(wait - 0.1) is None
    assert subject.due(wait).frames[0].seq == 1


def test_frames_that_cannot_be_sent_now_hold_up_no_others():
    subject = delivery()
    for seq in range(1, 4):
        subject.add(pending(seq))
    rest, late = subject.apart(subject.due(0.0), {1, 3})
    subject.postponed(late, until=5.0)
    assert [frame.seq for frame in subject.answered(rest, ahead=[], now=0.0)] == [2]
    assert not subject.is_idle
    assert (subject.due(4.0), subject.wait_s(4.0)) == (None, 1.0)
    assert [frame.seq for frame in subject.due(5.0).frames] == [1, 3]


def test_a_frame_that_is_due_while_a_request_probes_is_waited_for_and_not_asked_for_again_and_again():
    subject = delivery()
    for seq in (1, 2):
        subject.add(pending(seq))
    probing, late = subject.apart(subject.due(0.0), {2})
    subject.postponed(late, until=100.0)
    wait = subject.failed(probing, now=0.0)
    assert subject.due(wait).frames[0].seq == 1
    assert (subject.due(101.0), subject.wait_s(101.0)) == (None, None)


def test_what_goes_wrong_after_an_answer_sends_nothing_again():
    subject = delivery()
    subject.add(pending(1))
    request = subject.due(0.0)
    subject.answered(request, ahead=[], now=0.0)
    assert subject.failed(request, now=0.0) > 0
    assert subject.too_large(request, until=0.0).seq == 1
    assert subject.is_idle


def test_a_frame_too_far_ahead_is_sent_again_after_lower_ones():
    subject = delivery()
    subject.add(pending(1))
    subject.add(pending(9))
    settled = subject.answered(subject.due(0.0), ahead=[1], now=0.0)
    assert [frame.seq for frame in settled] == [1]
    assert subject.due(0.0) is None
    assert [frame.seq for frame in subject.due(AHEAD_WAIT_S).frames] == [9]


def test_a_body_too_large_is_halved_until_one_frame_is_left():
    subject = delivery()
    for seq in range(1, 5):
        subject.add(pending(seq, size=100))
    assert subject.too_large(subject.due(0.0), until=9.0) is None
    request = subject.due(0.0)
    assert [frame.seq for frame in request.frames] == [1, 2]
    assert subject.too_large(request, until=9.0) is None
    request = subject.due(0.0)
    assert subject.too_large(request, until=9.0).seq == 1
    # It waits until the way may be mended, and holds up nobody.
    assert [subject.due(0.0).frames[0].seq for _ in range(3)] == [2, 3, 4]
    assert subject.due(9.0).frames[0].seq == 1


def test_a_body_is_as_large_again_once_the_way_may_have_been_mended():
    subject = delivery()
    for seq in range(1, 3):
        subject.add(pending(seq, size=MAX_REQUEST_BYTES // 2))
    assert subject.too_large(subject.due(0.0), until=0.0) is None
    for seq in range(3, 9):
        subject.add(pending(seq, size=MAX_REQUEST_BYTES // 4))

    def sizes(now: float) -> list[int]:
        request = subject.due(now)
        subject.answered(request, [], now)
        return [frame.seq for frame in request.frames]

    assert (sizes(0.0), sizes(LARGER_AGAIN_S - 1)) == ([1], [2])
    # In its half, and in whole.
    assert sizes(LARGER_AGAIN_S - 1) == [3, 4]
    assert sizes(LARGER_AGAIN_S) == [5, 6, 7, 8]


@given(st.integers(0, 2**32), st.integers(1, 200))
def test_every_frame_is_settled_exactly_once_whatever_fails(seed, count):
    luck = random.Random(seed)
    subject = Delivery(Backoff(luck.uniform))
    for seq in range(1, count + 1):
        subject.add(pending(seq, size=luck.randrange(1, MAX_REQUEST_BYTES)))
    settled: list[int] = []
    now, flying = 0.0, []
    while not subject.is_idle:
        while (request := subject.due(now)) is not None:
            flying.append(request)
        if not flying:
            now += subject.wait_s(now) or 1.0
            continue
        request = flying.pop(luck.randrange(len(flying)))
        match luck.randrange(6):
            case 0:
                subject.failed(request, now)
            case 4:
                if subject.too_large(request, until=now + luck.random()) is None:
                    subject.hurry()
            case 5:
                late = {frame.seq for frame in request.frames if luck.random() < 0.5}
                rest, others = subject.apart(request, late)
                subject.postponed(others, until=now + luck.random())
                flying += [rest] if rest.frames else []
            case 1:
                ahead = [i for i in range(len(request.frames)) if luck.random() < 0.5]
                settled += [frame.seq for frame in subject.answered(request, ahead, now)]
            case _:
                settled += [frame.seq for frame in subject.answered(request, [], now)]
    assert sorted(settled) == list(range(1, count + 1))
