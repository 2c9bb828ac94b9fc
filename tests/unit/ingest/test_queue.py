"""How requests share a commit. The committer is a fake: what fails in it cannot be had from a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from stepstream_ingest.errors import DatabaseAway, RunClosed
from stepstream_ingest.write.candidate import Candidate
from stepstream_ingest.write.commit import Outcome
from stepstream_ingest.write.group import writer_key
from stepstream_ingest.write.queue import CommitQueue, Committed


class Committer:
    """Commits by `refuses`, slowly enough that what is sent meanwhile is a group."""

    def __init__(self, refuses: Callable[[Sequence[int]], Exception | None]) -> None:
        self.refuses = refuses
        self.groups: list[list[int]] = []

    async def commit(self, candidates: Sequence[Candidate]) -> Outcome:
        numbers = [one.seq for one in candidates]
        self.groups.append(numbers)
        await asyncio.sleep(0.01)
        if error := self.refuses(numbers):
            raise error
        return Outcome(verdicts=["new"] * len(numbers), marks={writer_key(one): one.seq for one in candidates})


@asynccontextmanager
async def queue(committer: Committer) -> AsyncIterator[CommitQueue]:
    running = CommitQueue(committer)
    running.start()
    yield running
    await running.stop()


def candidate(seq: int) -> Candidate:
    return Candidate(run_id="aa" * 16, writer=seq, seq=seq, rank=None, attempt=0, size=1, points=1, row=b"row")


async def sent(running: CommitQueue, numbers: Sequence[int]) -> list[Committed | BaseException]:
    return await asyncio.gather(*(running.submit([candidate(one)]) for one in numbers), return_exceptions=True)


async def test_requests_that_come_while_a_commit_is_under_way_share_the_next():
    committer = Committer(lambda numbers: None)
    async with queue(committer) as running:
        answers = await sent(running, range(1, 21))
    assert [answer.marks for answer in answers] == [[number] for number in range(1, 21)]
    assert sorted(number for group in committer.groups for number in group) == list(range(1, 21))
    assert len(committer.groups) <= 2


@pytest.mark.parametrize(
    ("error", "answer"),
    [(ValueError("odd"), DatabaseAway), (RunClosed("deleted"), RunClosed)],
    ids=["defect", "closed"],
)
async def test_a_request_that_cannot_be_stored_takes_no_other_along(error, answer):
    committer = Committer(lambda numbers: error if 7 in numbers else None)
    async with queue(committer) as running:
        answers = await sent(running, range(1, 11))
        assert isinstance(answers[6], answer)
        assert [answer.marks for answer in answers if isinstance(answer, Committed)] == [
            [n] for n in range(1, 11) if n != 7
        ]
        assert (await running.submit([candidate(11)])).marks == [11]


async def test_a_database_that_is_away_is_asked_once_for_a_group():
    committer = Committer(lambda numbers: DatabaseAway("away"))
    async with queue(committer) as running:
        answers = await sent(running, range(1, 11))
    assert all(isinstance(answer, DatabaseAway) for answer in answers)
    assert len(committer.groups) <= 2


async def test_a_server_that_stops_while_it_commits_one_by_one_answers_everybody():
    committer = Committer(lambda numbers: ValueError("odd") if len(numbers) > 1 else None)
    async with queue(committer) as running:
        answers = asyncio.create_task(sent(running, range(1, 11)))
        while len(committer.groups) < 4:
            await asyncio.sleep(0.001)
    answered = await asyncio.wait_for(answers, 5)
    assert {type(answer) for answer in answered} == {Committed, DatabaseAway}
