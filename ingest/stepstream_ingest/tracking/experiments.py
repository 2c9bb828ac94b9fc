"""Experiments in the database: made, renamed, tagged, deleted and restored with their runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stepstream_ingest.database import Database
from stepstream_ingest.errors import ApiError, NameTaken
from stepstream_ingest.filters import Comparison, Order
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.experiment_search import compile_search
from stepstream_ingest.tracking.run_search import Stage
from stepstream_schema import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment."""

    experiment_id: int
    name: str
    artifact_location: str
    """Where artifacts of its runs lie; `mlflow-artifacts:/7` unless it was given another."""
    lifecycle_stage: str
    created_at_ms: int
    updated_at_ms: int
    tags: Mapping[str, str]


class Experiments:
    """Law: a name belongs to one experiment, be it deleted. Raises ApiError and DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("tracking")

    async def create(self, name: str, artifact_location: str, tags: Mapping[str, str]) -> int:
        """A new experiment; its number."""
        rules.check_experiment_name(name)
        location = rules.check_artifact_location(artifact_location)
        for key, value in tags.items():
            rules.check_experiment_tag(key, value)
        async with self._database.connection() as connection, connection.transaction():
            number = await connection.fetchval(self._sql["new_experiment"], name, location)
            if number is None:
                raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists.")
            for key, value in sorted(tags.items()):
                await connection.execute(self._sql["set_experiment_tag"], number, key, value)
        return int(number)

    async def get_or_create(self, name: str, artifact_location: str, tags: Mapping[str, str]) -> Experiment:
        """The experiment of a name; only where there is none, one with this location and these tags."""
        if not await self._database.fetch(self._sql["experiment_by_name"], name):
            with suppress_existing():
                await self.create(name, artifact_location, tags)
        return await self.by_name(name)

    async def get(self, experiment_id: int) -> Experiment:
        """One experiment, be it deleted."""
        found = await self.many([experiment_id])
        if not found:
            raise _missing(f"No Experiment with id={experiment_id} exists")
        return found[0]

    async def many(self, experiment_ids: Sequence[int]) -> list[Experiment]:
        """Experiments by their numbers, in that order; what is not there is left out."""
        ids = list(experiment_ids)
        rows = {row["experiment_id"]: row for row in await self._database.fetch(self._sql["experiments_by_ids"], ids)}
        tags: dict[int, dict[str, str]] = {number: {} for number in ids}
        for tag in await self._database.fetch(self._sql["experiment_tags"], ids):
            tags[tag["experiment_id"]][tag["key"]] = tag["value"]
        return [_experiment(rows[number], tags[number]) for number in ids if number in rows]

    async def by_name(self, name: str) -> Experiment:
        """One experiment, be it deleted."""
        rows = await self._database.fetch(self._sql["experiment_by_name"], name)
        if not rows:
            raise _missing(f"Could not find experiment with name '{name}'")
        return await self.get(rows[0]["experiment_id"])

    async def all_active(self) -> list[int]:
        """The numbers of all that are not deleted."""
        return [row["experiment_id"] for row in await self._database.fetch(self._sql["active_experiments"])]

    async def active(self, experiment_id: int) -> Experiment:
        """One that may be written to."""
        found = await self.get(experiment_id)
        if found.lifecycle_stage != "active":
            state = f"Current state is {found.lifecycle_stage}."
            raise rules.invalid(f"The experiment {experiment_id} must be in the 'active' state. {state}")
        return found

    async def search(
        self, filters: Sequence[Comparison], orders: Sequence[Order], *, stage: Stage, limit: int, offset: int
    ) -> list[Experiment]:
        """A page of the experiments that fit."""
        query = compile_search(filters, orders, stage=stage, limit=limit, offset=offset)
        rows = await self._database.fetch(query.sql, *query.arguments)
        return await self.many([row["experiment_id"] for row in rows])

    async def rename(self, experiment_id: int, name: str) -> None:
        """A new name."""
        rules.check_experiment_name(name)
        if (await self.get(experiment_id)).lifecycle_stage != "active":
            raise ApiError(400, "INVALID_STATE", "Cannot rename a non-active experiment.")
        try:
            renamed = await self._database.fetch(self._sql["rename_experiment"], experiment_id, name)
        except NameTaken:
            renamed = []
        if not renamed:
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists.")

    async def delete(self, experiment_id: int) -> None:
        """Deleted with its runs, until it is restored."""
        await self._move(experiment_id, "deleted")

    async def restore(self, experiment_id: int) -> None:
        """Restored with its runs."""
        await self._move(experiment_id, "active")

    async def set_tag(self, experiment_id: int, key: str, value: str) -> None:
        """The last value stays."""
        rules.check_experiment_tag(key, value)
        await self.active(experiment_id)
        await self._database.fetch(self._sql["set_experiment_tag"], experiment_id, key, value)

    async def delete_tag(self, experiment_id: int, key: str) -> None:
        """A tag goes."""
        await self.active(experiment_id)
        if not await self._database.fetch(self._sql["delete_experiment_tag"], experiment_id, key):
            raise _missing(f"No tag with name: {key} in experiment with id {experiment_id}")

    async def _move(self, experiment_id: int, stage: str) -> None:
        if not await self._database.fetch(self._sql["move_experiment"], experiment_id, stage):
            raise _missing(f"No Experiment with id={experiment_id} exists that is not {stage} already")


def _experiment(row: Any, tags: Mapping[str, str]) -> Experiment:
    location = row["artifact_location"] or f"mlflow-artifacts:/{row['experiment_id']}"
    return Experiment(**dict(row) | {"artifact_location": location}, tags=tags)


@contextmanager
def suppress_existing() -> Iterator[None]:
    """Somebody else has made it meanwhile."""
    try:
        yield
    except ApiError as error:
        if error.code != "RESOURCE_ALREADY_EXISTS":
            raise


def _missing(message: str) -> ApiError:
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", message)
