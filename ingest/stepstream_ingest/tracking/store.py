"""Experiments and runs in the database."""

import time
from typing import Any
from uuid import UUID

from stepstream_ingest.database import Database
from stepstream_ingest.errors import ApiError
from stepstream_schema import sql
from stepstream_schema.attempt import Attempt


class TrackingStore:
    """Reads and writes experiments and runs. Raises ApiError for what cannot be done, DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("tracking")

    async def ping(self) -> None:
        """Raises DatabaseAway."""
        await self._database.fetch("SELECT 1")

    async def create_experiment(self, name: str) -> dict[str, Any]:
        """The experiment of that name, made if there is none."""
        await self._database.fetch(self._sql["create_experiment"], name)
        return await self.experiment_by_name(name)

    async def experiment_by_name(self, name: str) -> dict[str, Any]:
        """One experiment."""
        return _one(await self._database.fetch(self._sql["experiment_by_name"], name), f"experiment {name!r}")

    async def experiment_by_id(self, experiment_id: int) -> dict[str, Any]:
        """One experiment."""
        rows = await self._database.fetch(self._sql["experiment_by_id"], experiment_id)
        return _one(rows, f"experiment {experiment_id}")

    async def experiments(self, limit: int) -> list[dict[str, Any]]:
        """The newest experiments."""
        return [dict(row) for row in await self._database.fetch(self._sql["list_experiments"], limit)]

    async def create_run(
        self, *, run_id: UUID, experiment_id: int, name: str, user: str, start_time_ms: int
    ) -> dict[str, Any]:
        """A run that is announced by a request; one that exists stays as it is."""
        await self._database.fetch(self._sql["create_run"], run_id, experiment_id, name, user, start_time_ms)
        return await self.run(run_id)

    async def run(self, run_id: UUID) -> dict[str, Any]:
        """One run with its params, tags and writers."""
        run = _run(_one(await self._database.fetch(self._sql["get_run"], run_id), f"run {run_id.hex}"))
        params = await self._database.fetch(self._sql["run_params"], run_id)
        tags = await self._database.fetch(self._sql["run_tags"], run_id)
        writers = await self._database.fetch(self._sql["run_writers"], run_id)
        conflicts = await self._database.fetch(self._sql["count_param_conflicts"], run_id)
        return run | {
            "params": {row["key"]: row["value"] for row in params},
            "tags": {row["key"]: row["value"] for row in tags},
            "writers": [_writer(row) for row in writers],
            "param_conflicts": conflicts[0]["count"],
        }

    async def runs(self, experiment_id: int | None, limit: int) -> list[dict[str, Any]]:
        """The newest runs, of one experiment or of all."""
        rows = await self._database.fetch(self._sql["list_runs"], experiment_id, limit)
        return [_run(dict(row)) for row in rows]

    async def finish_run(self, run_id: UUID, status: str, end_time_ms: int | None) -> dict[str, Any]:
        """End a run."""
        end = time.time_ns() // 1_000_000 if end_time_ms is None else end_time_ms
        await self._database.fetch(self._sql["finish_run"], run_id, status, end)
        return await self.run(run_id)

    async def fail_silent_runs(self, timeout_s: float) -> int:
        """Mark runs failed that have promised heartbeats and are not heard; how many."""
        return len(await self._database.fetch(self._sql["fail_silent_runs"], timeout_s))


def _one(rows: Any, what: str) -> dict[str, Any]:
    if not rows:
        raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no {what}")
    return dict(rows[0])


def _run(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"run_id": row["run_id"].hex, "user": row["user_id"]}


def _writer(row: Any) -> dict[str, Any]:
    attempt = Attempt.unpack(row["attempt"])
    return dict(row) | {"attempt": [attempt.scheduler, attempt.elastic, attempt.resume]}
