"""Collects requests into groups and hands each request its part of the outcome."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from stepstream_ingest import telemetry
from stepstream_ingest.errors import DatabaseAway, IngestError, RunClosed
from stepstream_ingest.write.candidate import Candidate
from stepstream_ingest.write.commit import HiddenRun, Outcome, ParamConflict
from stepstream_ingest.write.group import Fate, writer_key

LOGGER: Final = logging.getLogger(__name__)

MAX_GROUP_BYTES: Final = 16 * 2**20
"""One transaction: long enough to share its fsync, short enough that nobody waits seconds for it."""
MAX_GROUP_FRAMES: Final = 2048
CONCURRENT_COMMITS: Final = 2
"""While one group waits for the disk, the next is written."""
WORTH_A_COMMIT_BYTES: Final = 256 * 2**10
"""Less than this waits for the commit under way, and shares the next: single points come a thousand a second."""


@dataclass(frozen=True, slots=True, eq=False)
class Submission:
    """One request's candidates."""

    candidates: Sequence[Candidate]
    done: "asyncio.Future[Committed]"

    @property
    def size(self) -> int:
        """Encoded bytes."""
        return sum(one.size for one in self.candidates)


@dataclass(frozen=True, slots=True)
class Committed:
    """What came of one request: durable, and known by everybody."""

    verdicts: Sequence[Fate]
    marks: Sequence[int]
    conflicts: Sequence[ParamConflict] = ()
    hidden: Sequence[HiddenRun] = ()


class Commits(Protocol):
    """What a group is handed to."""

    async def commit(self, candidates: Sequence[Candidate]) -> Outcome:
        """Store what is new. Raises DatabaseAway or RunClosed, with nothing of the group stored."""


class CommitQueue:
    """Law: `submit` returns after the commit that holds its candidates, or raises DatabaseAway or RunClosed."""

    def __init__(self, committer: Commits) -> None:
        self._committer = committer
        self._waiting: deque[Submission] = deque()
        self._arrived = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._committing = 0

    def start(self) -> None:
        """Begin to commit."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(CONCURRENT_COMMITS)]

    async def stop(self) -> None:
        """Give up what is not committed; the server has waited for its handlers before."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def submit(self, candidates: Sequence[Candidate]) -> Committed:
        """Wait for the commit of these candidates. Raises DatabaseAway, RunClosed."""
        submission = Submission(candidates, asyncio.get_running_loop().create_future())
        async with self._arrived:
            self._waiting.append(submission)
            self._arrived.notify()
        return await submission.done

    async def _run(self) -> None:
        while True:
            async with self._arrived:
                await self._arrived.wait_for(self._is_due)
                self._committing += 1
            try:
                # What has arrived while the last group was written, and is only to be read, may still share this one.
                await asyncio.sleep(0)
                await self._commit(self._take())
            finally:
                self._committing -= 1
            async with self._arrived:
                self._arrived.notify()

    def _is_due(self) -> bool:
        if not self._waiting or not self._committing:
            return bool(self._waiting)
        return sum(one.size for one in self._waiting) >= WORTH_A_COMMIT_BYTES

    def _take(self) -> list[Submission]:
        taken: list[Submission] = []
        size = frames = 0
        while self._waiting and (not taken or (size < MAX_GROUP_BYTES and frames < MAX_GROUP_FRAMES)):
            submission = self._waiting.popleft()
            if submission.done.cancelled():
                continue  # its sender has gone away and will send again
            taken.append(submission)
            size += submission.size
            frames += len(submission.candidates)
        return taken

    async def _commit(self, group: list[Submission]) -> None:
        candidates = [one for submission in group for one in submission.candidates]
        if not candidates:
            return
        began = time.perf_counter()
        try:
            outcome = await self._committer.commit(candidates)
        except DatabaseAway as error:
            LOGGER.warning("a group of %d frames was not committed: %s", len(candidates), error)
            _fail(group, error)
            return
        except RunClosed as error:
            # Of one run: what the others have sent is appended as ever, in as few commits as that takes.
            if len(group) > 1:
                middle = len(group) // 2
                await self._commit_parts(group[:middle], group[middle:])
            else:
                _fail(group, error)
            return
        except asyncio.CancelledError:
            _fail(group, DatabaseAway("the server is stopping"))
            raise
        except Exception as error:
            # A defect must not end the loop that everybody waits for; the senders keep their frames.
            LOGGER.exception("a group of %d frames could not be committed", len(candidates))
            if len(group) > 1:
                await self._commit_parts(*([one] for one in group))
            else:
                _fail(group, DatabaseAway(f"the commit failed: {error}"))
            return
        telemetry.COMMIT_SECONDS.observe(time.perf_counter() - began)
        telemetry.GROUP_FRAMES.observe(len(candidates))
        _distribute(group, outcome)

    async def _commit_parts(self, *parts: list[Submission]) -> None:
        """Apart: who has sent what cannot be stored must not take the others along, now and at each of its returns."""
        try:
            for part in parts:
                await self._commit(part)
        except asyncio.CancelledError:
            for part in parts:
                _fail(part, DatabaseAway("the server is stopping"))
            raise


def _fail(group: Sequence[Submission], error: IngestError) -> None:
    """Tell those that have not been told anything yet."""
    for submission in group:
        if not submission.done.done():
            submission.done.set_exception(error)


def _distribute(group: Sequence[Submission], outcome: Outcome) -> None:
    start = 0
    for submission in group:
        end = start + len(submission.candidates)
        own = {(one.run_id, one.writer, one.seq) for one in submission.candidates}
        runs = {one.run_id for one in submission.candidates} if outcome.hidden else ()
        if not submission.done.done():
            submission.done.set_result(
                Committed(
                    verdicts=outcome.verdicts[start:end],
                    marks=[outcome.marks.get(writer_key(one), 0) for one in submission.candidates],
                    conflicts=[one for one in outcome.conflicts if (one.run_id, one.writer, one.seq) in own],
                    hidden=[one for one in outcome.hidden if one.run_id in runs],
                )
            )
        start = end
