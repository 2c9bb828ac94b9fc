"""What many ask at once is asked together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathering(Generic[Question, Answer]):
    """Law: each caller gets the answer to its own question, or the error of the request that carried it.

    A question that finds nothing under way goes at once; while a request is under way the next ones gather, so that
    requests grow with the load and nobody waits for a batch to fill.
    """

    def __init__(self, request: Callable[[list[Question]], Awaitable[Sequence[Answer]]], most: int) -> None:
        self._request = request
        self._most = most
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Raises what the request raises."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                count = min(self._most, len(self._waiting))
                asked = [self._waiting.popleft() for _ in range(count)]
                await self._carry([one for one in asked if not one[1].done()])
        finally:
            self._task = None

    async def _carry(self, asked: Sequence[tuple[Question, "asyncio.Future[Answer]"]]) -> None:
        if not asked:
            return
        try:
            answers = await self._request([question for question, _ in asked])
            if len(answers) != len(asked):
                raise ValueError(f"{len(asked)} questions got {len(answers)} answers")
        except Exception as error:  # noqa: BLE001 - raised again by those who asked
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
