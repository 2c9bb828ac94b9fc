"""Runs that are written to by requests: made, updated, given params and tags, datasets and models."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import orjson

from stepstream_ingest.database import Connection, Database
from stepstream_ingest.errors import ApiError
from stepstream_ingest.filters import Comparison, Order
from stepstream_ingest.keys import check_key
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.run_search import Stage, compile_search
from stepstream_schema import sql
from stepstream_schema.records import DATASET_TEXTS
from stepstream_schema.run_names import run_name

NAME_TAG: Final = "mlflow.runName"
MAX_DATASETS: Final = 1000
"""As many summaries of datasets as MLflow answers."""
COLUMNS: Final = (
    "run_id",
    "experiment_id",
    "experiment",
    "name",
    "user_id",
    "status",
    "start_time_ms",
    "end_time_ms",
    "lifecycle_stage",
    "artifact_location",
)
"""Of the query runs_by_ids, as a Run has them."""
PART: Final = 250
"""Runs that are read at a time: MLflow asks for up to 50,000 on a page, and others must be answered meanwhile."""
MODELS_TAG: Final = "mlflow.log-model.history"
MAX_HISTORY_CHARS: Final = 200_000
"""Of that tag, which is longer than others may be: some 500 models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a run has read."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str
    tags: Mapping[str, str]
    """Of this use, such as mlflow.data.context."""


Latest: TypeAlias = tuple[str, float, int, int]
"""(key, value, step, time in ms) of the latest point; a plain tuple, since a page of a search holds thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run with all that is known of it."""

    run_id: UUID
    experiment_id: int
    experiment: str
    """Its name."""
    name: str
    user_id: str
    status: str
    start_time_ms: int | None
    end_time_ms: int | None
    lifecycle_stage: str
    artifact_location: str
    """Of its experiment."""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[Latest]
    datasets: Sequence[Dataset]
    models: Sequence[tuple[str, UUID, int]]
    """(direction, model, step)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A process that has sent frames."""

    writer: int
    rank: int | None
    attempt: int
    """Packed, see stepstream_schema.attempt."""
    status: str | None
    frames: int
    """All up to this number have come."""
    seen_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run as its writers tell it."""

    announced: bool
    """Its start has come; else it is a place for what came before."""
    lost: bool
    """It is marked failed because nothing is heard of it."""
    param_conflicts: int
    writers: Sequence[Writer]


class Runs:
    """Law: a request is applied whole or not at all, and never to a deleted run. Raises ApiError, DatabaseAway."""

    def __init__(self, database: Database, readers: Database) -> None:
        self._database = database
        self._readers = readers
        self._sql = sql.queries("tracking")
        # Two edits of one millisecond keep their order.
        self._numbers = itertools.count(time.time_ns())

    async def create(
        self,
        experiment_id: int,
        *,
        name: str,
        user: str,
        start_time_ms: int,
        tags: Mapping[str, str],
        run_id: UUID | None = None,
    ) -> UUID:
        """A run in an active experiment; its id. One that is there already, by an id that is given, stays as it is."""
        run_id = run_id or uuid4()
        if name and tags.get(NAME_TAG, name) != name:
            raise rules.invalid(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{tags[NAME_TAG]}')."
            )
        name = name or tags.get(NAME_TAG) or run_name(run_id.hex)
        rules.check_keys(tags)
        said = {key: rules.tag_value(key, value) for key, value in tags.items()} | {NAME_TAG: name}
        async with self._database.connection() as connection, connection.transaction():
            new = await connection.fetchval(self._sql["new_run"], run_id, experiment_id, name, user, start_time_ms)
            if new is not None:
                await self._tag(connection, run_id, said)
        return run_id

    async def finish(self, run_id: UUID, status: str, end_time_ms: int | None) -> None:
        """End a run, unless something later has been said of its status."""
        end = time.time_ns() // 1_000_000 if end_time_ms is None else end_time_ms
        await self._database.fetch(self._sql["finish_run"], run_id, status, end)

    async def job(self, run_id: UUID) -> Job:
        """What frames have said of it. Raises ApiError 404."""
        rows = await self._readers.fetch(self._sql["run_job"], run_id)
        if not rows:
            raise _missing(run_id)
        writers = await self._readers.fetch(self._sql["run_writers"], run_id)
        return Job(**dict(rows[0]), writers=[Writer(**dict(row)) for row in writers])

    async def get(self, run_id: UUID) -> Run:
        """One run, be it deleted."""
        found = await self.find(run_id)
        if found is None:
            raise _missing(run_id)
        return found

    async def find(self, run_id: UUID) -> Run | None:
        """The same; None where it is not."""
        return next(await self._part([run_id]), None)

    async def many(self, run_ids: Sequence[UUID]) -> AsyncIterator[Run]:
        """Runs by their ids, in that order; each is made when it is asked for, since a page may have thousands."""
        for start in range(0, len(run_ids), PART):
            for found in await self._part(list(run_ids[start : start + PART])):
                yield found

    async def _part(self, ids: list[UUID]) -> Iterator[Run]:
        # The metrics take as long as all the rest: the two pass side by side.
        latest, (rows, datasets, models) = await asyncio.gather(
            self._readers.fetch(self._sql["latest_of_runs"], ids), self._about(ids)
        )
        metrics = {row["run_id"]: row for row in latest}
        return (
            Run(
                **{name: row[name] for name in COLUMNS},
                params=_pairs(row["param_keys"], row["param_values"]),
                tags=_pairs(row["tag_keys"], row["tag_values"]),
                metrics=_latest(metrics.get(run_id)),
                datasets=datasets.get(run_id, []),
                models=models.get(run_id, []),
            )
            for run_id in ids
            if (row := rows.get(run_id)) is not None
        )

    async def _about(self, ids: list[UUID]) -> tuple[Any, Any, Any]:
        rows = {row["run_id"]: row for row in await self._readers.fetch(self._sql["runs_by_ids"], ids)}
        read = [run_id for run_id, row in rows.items() if row["has_datasets"]]
        made = [run_id for run_id, row in rows.items() if row["has_models"]]
        return rows, await self._datasets(read) if read else {}, await self._models(made) if made else {}

    async def search(
        self,
        experiment_ids: Sequence[int],
        filters: Sequence[Comparison],
        orders: Sequence[Order],
        *,
        stage: Stage,
        limit: int,
        offset: int,
    ) -> list[UUID]:
        """The ids of a page of the runs that fit."""
        query = compile_search(experiment_ids, filters, orders, stage=stage, limit=limit, offset=offset)
        return [row["run_id"] for row in await self._readers.fetch(query.sql, *query.arguments)]

    async def update(
        self, run_id: UUID, *, status: str | None, end_time_ms: int | None, ends: bool, name: str | None
    ) -> None:
        """Change what is given; `ends` says that the end time is among it."""
        async with self._database.connection() as connection, connection.transaction():
            # The row is changed: two that had locked it for reading only would wait for one another.
            await self._lock(connection, run_id, alone=True)
            await connection.execute(self._sql["update_run"], run_id, status, ends, end_time_ms, name)
            if name is not None:
                await self._tag(connection, run_id, {NAME_TAG: name})

    async def check_writable(self, run_id: UUID) -> None:
        """Raises ApiError for a run that is not there or deleted. Nothing is locked: points alone change no row."""
        rows = await self._database.fetch(self._sql["run_stage"], run_id)
        _check_stage(run_id, rows[0]["lifecycle_stage"] if rows else None)

    async def log(self, run_id: UUID, params: Sequence[tuple[str, str]], tags: Mapping[str, str]) -> None:
        """Params and tags together. Raises ApiError for a param that has another value."""
        for key, _ in params:
            check_key(key, "param")
        for key in tags:
            check_key(key, "tag")
        said = {key: rules.param_value(key, value) for key, value in params}
        async with self._database.connection() as connection, connection.transaction():
            await self._lock(connection, run_id, alone=NAME_TAG in tags)
            if said:
                await self._log_params(connection, run_id, said)
            await self._tag(connection, run_id, {key: rules.tag_value(key, value) for key, value in tags.items()})
            if NAME_TAG in tags:
                await connection.execute(self._sql["update_run"], run_id, None, False, None, tags[NAME_TAG])

    async def log_model_history(self, run_id: UUID, model: Mapping[str, Any]) -> None:
        """Append to the tag in which MLflow 2 keeps the models of a run."""
        async with self._database.connection() as connection, connection.transaction():
            await self._lock(connection, run_id, alone=True)
            tags = {row["key"]: row["value"] for row in await connection.fetch(self._sql["run_tags"], run_id)}
            try:
                history = orjson.loads(tags.get(MODELS_TAG, "[]"))
            except orjson.JSONDecodeError:
                history = []
            said = orjson.dumps([*(history if isinstance(history, list) else []), dict(model)]).decode()
            if len(said) > MAX_HISTORY_CHARS:
                raise rules.invalid(f"the tag {MODELS_TAG} would be longer than {MAX_HISTORY_CHARS} characters")
            await self._tag(connection, run_id, {MODELS_TAG: said})

    async def delete_tag(self, run_id: UUID, key: str) -> None:
        """A tag goes, and an older value does not bring it back."""
        async with self._database.connection() as connection, connection.transaction():
            await self._lock(connection, run_id)
            there = {row["key"] for row in await connection.fetch(self._sql["run_tags"], run_id)}
            if key not in there:
                raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"No tag with name: {key} in run with id {run_id.hex}")
            await self._tag(connection, run_id, {key: None})

    async def log_datasets(self, run_id: UUID, experiment_id: int, datasets: Sequence[Dataset]) -> None:
        """What the run has read; a dataset is known by its name and digest."""
        for one in datasets:
            rules.check_dataset({name: getattr(one, name) for name in DATASET_TEXTS}, one.tags)
        async with self._database.connection() as connection, connection.transaction():
            await self._lock(connection, run_id)
            columns = zip(
                *[(one.name, one.digest, one.source_type, one.source, one.schema, one.profile) for one in datasets],
                strict=True,
            )
            ids = [uuid4() for _ in datasets]
            await connection.execute(self._sql["log_datasets"], experiment_id, ids, *map(list, columns))
            await connection.execute(
                self._sql["use_datasets"],
                run_id,
                experiment_id,
                [one.name for one in datasets],
                [one.digest for one in datasets],
                [orjson.dumps(dict(one.tags)).decode() for one in datasets],
            )

    async def log_models(self, run_id: UUID, direction: str, models: Sequence[tuple[UUID, int]]) -> None:
        """Models that the run has read (`input`) or made (`output`), each with a step."""
        async with self._database.connection() as connection, connection.transaction():
            await self._lock(connection, run_id)
            ids, steps = [model for model, _ in models], [step for _, step in models]
            await connection.execute(self._sql["use_models"], run_id, direction, ids, steps)

    async def datasets_of(self, experiment_ids: Sequence[int]) -> list[tuple[int, str, str, str | None]]:
        """(experiment, name, digest, context) of what active runs of these experiments have read, the first 1000."""
        rows = await self._readers.fetch(self._sql["datasets_of_experiments"], list(experiment_ids), MAX_DATASETS)
        return [(row["experiment_id"], row["name"], row["digest"], row["context"]) for row in rows]

    async def _datasets(self, run_ids: Sequence[UUID]) -> dict[UUID, list[Dataset]]:
        """What runs have read."""
        found: dict[UUID, list[Dataset]] = {run_id: [] for run_id in run_ids}
        for row in await self._readers.fetch(self._sql["run_datasets"], list(run_ids)):
            said = {name: row[name] for name in ("name", "digest", "source_type", "source", "schema", "profile")}
            found[row["run_id"]].append(Dataset(**said, tags=orjson.loads(row["tags"])))
        return found

    async def _models(self, run_ids: Sequence[UUID]) -> dict[UUID, list[tuple[str, UUID, int]]]:
        """(direction, model, step) of what runs have read and made."""
        found: dict[UUID, list[tuple[str, UUID, int]]] = {run_id: [] for run_id in run_ids}
        for row in await self._readers.fetch(self._sql["run_models"], list(run_ids)):
            found[row["run_id"]].append((row["direction"], row["model_id"], row["step"]))
        return found

    async def _lock(self, connection: Connection, run_id: UUID, *, alone: bool = False) -> None:
        stage = await connection.fetchval(self._sql["lock_run_alone" if alone else "lock_run"], run_id)
        _check_stage(run_id, stage)

    async def _log_params(self, connection: Connection, run_id: UUID, params: Mapping[str, str]) -> None:
        keys = sorted(params)
        await connection.execute(self._sql["log_params"], run_id, keys, [params[key] for key in keys])
        stored = {row["key"]: row["value"] for row in await connection.fetch(self._sql["stored_params"], run_id, keys)}
        changed = [key for key in keys if stored[key] != params[key]]
        if len(changed) == 1 and len(params) == 1:
            key = changed[0]
            raise rules.invalid(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                f"value='{stored[key]}' for run ID='{run_id.hex}'. Attempted logging new value '{params[key]}'."
            )
        if changed:
            said = [{"key": key, "old_value": stored[key], "new_value": params[key]} for key in changed]
            raise rules.invalid(
                f"Changing param values is not allowed. Params were already logged='{said}' for run ID='{run_id.hex}'."
            )

    async def _tag(self, connection: Connection, run_id: UUID, tags: Mapping[str, Any]) -> None:
        if tags:
            now = time.time_ns() // 1_000_000
            keys = sorted(tags)
            values = [tags[key] for key in keys]
            await connection.execute(self._sql["log_tags"], run_id, keys, values, now, next(self._numbers))


def _check_stage(run_id: UUID, stage: str | None) -> None:
    if stage is None:
        raise _missing(run_id)
    if stage != "active":
        raise rules.invalid(f"The run {run_id.hex} must be in the 'active' state. Current state is {stage}.")


def _missing(run_id: UUID) -> ApiError:
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id.hex} not found")


def _latest(row: Any) -> list[Latest]:
    return list(zip(row["keys"], row["values"], row["steps"], row["times_ms"], strict=True)) if row else []


def _pairs(keys: Sequence[str] | None, values: Sequence[str] | None) -> dict[str, str]:
    return dict(zip(keys or (), values or (), strict=True))
