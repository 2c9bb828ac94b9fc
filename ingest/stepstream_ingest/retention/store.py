"""What age and deletion do in the database, a bounded number of rows at a time."""

import logging
import time
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from stepstream_ingest.database import Connection, Database
from stepstream_ingest.errors import ApiError
from stepstream_schema import sql

LOGGER: Final = logging.getLogger(__name__)

ROWS_AT_A_TIME: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one step of garbage collection did, and what is left."""

    rows: int
    runs: int
    """Runs that are wholly gone."""
    runs_left: int
    models: int
    """Logged models that are gone; their files in the store are of no artifact now."""
    models_left: int


class Retention:
    """Law: nothing of a run goes unless it was deleted, or its experiment says so. Raises DatabaseAway, ApiError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("retention")

    async def set(self, experiment_id: int, keep_raw_days: int | None, keep_days: int | None) -> dict[str, Any]:
        """How long the experiment keeps raw points, and its ended runs; None is for ever."""
        rows = await self._database.fetch(self._sql["set_retention"], experiment_id, keep_raw_days, keep_days)
        if not rows:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no experiment {experiment_id}")
        return dict(rows[0])

    async def delete(self, run_id: UUID) -> dict[str, Any]:
        """Mark a run deleted."""
        return await self._move("delete_run", run_id)

    async def restore(self, run_id: UUID) -> dict[str, Any]:
        """Take that back, as long as its garbage is not collected."""
        return await self._move("restore_run", run_id)

    async def garbage(self, older_than_days: int) -> dict[str, int]:
        """How much there is to collect."""
        return dict((await self._database.fetch(self._sql["garbage"], older_than_days))[0])

    async def collect(self, older_than_days: int, seconds: float) -> Collected:
        """Remove deleted runs, and then deleted logged models, for about so long."""
        deadline = time.monotonic() + seconds
        rows = runs = models = 0
        while time.monotonic() < deadline:
            async with self._database.connection() as connection, connection.transaction():
                run_id = await connection.fetchval(self._sql["next_garbage"], older_than_days)
                if run_id is not None:
                    removed = await self._remove_some(connection, run_id)
                    rows += removed
                    if not removed:
                        await connection.execute(self._sql["remove_rest"], run_id)
                        runs += 1
                    continue
                model_id = await connection.fetchval(self._sql["next_garbage_model"], older_than_days)
                if model_id is None:
                    break
                removed = _count(await connection.execute(self._sql["remove_artifacts"], model_id, ROWS_AT_A_TIME))
                rows += removed
                if not removed:
                    await connection.execute(self._sql["remove_model"], model_id)
                    models += 1
        # Not what they hold, which takes longer to add up than what is removed in the meantime.
        (left,) = await self._database.fetch(self._sql["garbage_left"], older_than_days)
        return Collected(rows=rows, runs=runs, runs_left=left["runs"], models=models, models_left=left["models"])

    async def age(self) -> int:
        """Apply what experiments say about age; how many chunks and runs it met."""
        moved, met = 0, ROWS_AT_A_TIME
        while met >= ROWS_AT_A_TIME:
            thinned, expired = await self._age_some("thin_old_chunks"), await self._age_some("expire_runs")
            met = max(thinned, expired)
            moved += thinned + expired
        if moved:
            LOGGER.info("%d chunks lost their raw points, or runs were deleted, by age", moved)
        return moved

    async def _age_some(self, query: str) -> int:
        async with self._database.connection() as connection, connection.transaction():
            # One of all workers, on whatever machines: the others would read the same rows at the same moment.
            if not await connection.fetchval(self._sql["turn_to_age"]):
                return 0
            return _count(await connection.execute(self._sql[query], ROWS_AT_A_TIME))

    async def _remove_some(self, connection: Connection, run_id: UUID) -> int:
        # The latest values before the series they are of, and after the frames, whose compaction would wait for them.
        for query in ("remove_chunks", "remove_frames", "remove_latest", "remove_series", "remove_artifacts"):
            removed = _count(await connection.execute(self._sql[query], run_id, ROWS_AT_A_TIME))
            if removed:
                return removed
        return 0

    async def _move(self, query: str, run_id: UUID) -> dict[str, Any]:
        rows = await self._database.fetch(self._sql[query], run_id)
        if not rows:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no run {run_id.hex}")
        return {"run_id": rows[0]["run_id"].hex, "lifecycle_stage": rows[0]["lifecycle_stage"]}


def _count(tag: str) -> int:
    """Rows that a statement touched, by PostgreSQL's command tag, such as `DELETE 17`."""
    return int(tag.rpartition(" ")[2])
