"""Whether runs may be written to, asked for many requests at once."""

import asyncio
from typing import Any
from uuid import UUID

from stepstream_ingest.database import Database
from stepstream_schema import sql


class Stages:
    """Law: `of` answers with what the database said in a statement that began after the call. Raises DatabaseAway.

    While one statement is under way, whoever asks waits for the next: a hundred requests are two round trips.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("tracking")
        self._waiting: dict[UUID, asyncio.Future[str | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def of(self, run_id: UUID) -> str | None:
        """The run's lifecycle stage; None where there is no such run."""
        answer = self._waiting.get(run_id)
        if answer is None:
            answer = self._waiting[run_id] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        # Several requests may wait for one answer: one that is given up must not take it from the others.
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                await self._settle(waiting)
        finally:
            self._asking = None

    async def _settle(self, waiting: dict[UUID, "asyncio.Future[str | None]"]) -> None:
        found: dict[UUID, Any] = {}
        try:
            rows = await self._database.fetch(self._sql["run_stages"], list(waiting))
            found = {row["run_id"]: row["lifecycle_stage"] for row in rows}
        except asyncio.CancelledError:
            for answer in waiting.values():
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            for answer in waiting.values():
                answer.set_exception(error)
                # Whoever asked may have gone away meanwhile: then nobody is to be told.
                answer.exception()
            return
        for run_id, answer in waiting.items():
            answer.set_result(found.get(run_id))
