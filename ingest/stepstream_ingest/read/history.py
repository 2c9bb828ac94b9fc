"""Reads series from the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from stepstream_ingest.database import Database
from stepstream_ingest.read import points as pure
from stepstream_ingest.read.points import Points
from stepstream_schema import frame as wire
from stepstream_schema import sql

FRAMES_PER_FETCH = 200
"""Bodies held at a time while a history is put together: some 70 MB of the largest ordinary ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which points of a run."""

    run_id: UUID
    key: str
    rank: int | None = None
    any_rank: bool = True
    """False: only those of `rank`, which may be None."""
    attempt: int | None = None
    """Packed; None is the newest of each step."""
    start_step: int | None = None
    end_step: int | None = None


class History:
    """What the store knows of a run's metrics: everything that is acknowledged."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("read")

    async def run_exists(self, run_id: UUID) -> bool:
        """Whether the run is known."""
        return bool(await self._database.fetch(self._sql["run_exists"], run_id))

    async def series(self, run_id: UUID) -> Sequence[Any]:
        """The series of a run, each with its summary."""
        return await self._database.fetch(self._sql["series"], run_id)

    async def points(self, wanted: Wanted) -> Points:
        """The points, sorted by (step, time)."""
        parts: list[Points] = []
        async with self._database.connection() as connection, connection.transaction(readonly=True):
            rows = connection.cursor(
                self._sql["frames_of_key"],
                wanted.run_id,
                wanted.key,
                not wanted.any_rank,
                wanted.rank,
                wanted.attempt,
                prefetch=FRAMES_PER_FETCH,
            )
            async for row in rows:
                parts += pure.of_key(wire.decode(row["body"]), wanted.key)
        found = pure.in_steps(pure.joined(parts), wanted.start_step, wanted.end_step)
        if wanted.any_rank or wanted.attempt is None:
            found = pure.lowest_rank_newest_attempt(found)
        return found
