"""Logged models: what a run makes, before anybody registers it."""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from stepstream_ingest.database import Database
from stepstream_ingest.errors import ApiError
from stepstream_ingest.filters import Comparison
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.model_search import ModelOrder, OnDataset, compile_search
from stepstream_schema import sql
from stepstream_schema.run_names import run_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetric:
    """A value that a run has measured of a model, on a dataset where one is named."""

    model_id: UUID
    key: str
    step: int
    time_ms: int
    value: float
    dataset_name: str
    dataset_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedModel:
    """One logged model."""

    model_id: UUID
    experiment_id: int
    name: str
    model_type: str
    source_run_id: UUID | None
    status: str
    status_message: str
    created_at_ms: int
    updated_at_ms: int
    lifecycle_stage: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[tuple[UUID, ModelMetric]]
    """Each with the run that has measured it."""


class LoggedModels:
    """Reads and writes logged models. Raises ApiError and DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("tracking")

    async def create(
        self,
        experiment_id: int,
        *,
        name: str,
        model_type: str,
        source_run_id: UUID | None,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        model_id: UUID | None = None,
    ) -> UUID:
        """A model that is about to be logged; its id. One that is there already, by an id that is given, stays."""
        model_id = model_id or uuid4()
        name = rules.check_model_name(name) if name else run_name(model_id.hex)
        rules.check_keys(params, "param")
        rules.check_keys(tags)
        now = _now_ms()
        async with self._database.connection() as connection, connection.transaction():
            new = await connection.fetchval(
                self._sql["new_model"], model_id, experiment_id, name, model_type, source_run_id, now
            )
            if new is not None:
                await connection.execute(self._sql["log_model_params"], model_id, *_columns(params))
                await connection.execute(self._sql["set_model_tags"], model_id, *_columns(tags))
        return model_id

    async def get(self, model_id: UUID, *, deleted_too: bool = False) -> LoggedModel:
        """One model."""
        found = (await self.many([model_id])).get(model_id)
        if found is None or (found.lifecycle_stage != "active" and not deleted_too):
            raise _missing(model_id)
        return found

    async def many(self, model_ids: Sequence[UUID]) -> dict[UUID, LoggedModel]:
        """Models by their ids, deleted ones included."""
        ids = list(model_ids)
        params = _by_model(await self._database.fetch(self._sql["model_params"], ids))
        tags = _by_model(await self._database.fetch(self._sql["model_tags"], ids))
        metrics: dict[UUID, list[tuple[UUID, ModelMetric]]] = {}
        for row in await self._database.fetch(self._sql["model_metrics"], ids):
            said = {name: value for name, value in row.items() if name != "run_id"}
            metrics.setdefault(row["model_id"], []).append((row["run_id"], ModelMetric(**said)))
        return {
            row["model_id"]: LoggedModel(
                **dict(row),
                params=params.get(row["model_id"], {}),
                tags=tags.get(row["model_id"], {}),
                metrics=metrics.get(row["model_id"], []),
            )
            for row in await self._database.fetch(self._sql["models"], ids)
        }

    async def search(
        self,
        experiment_ids: Sequence[int],
        filters: Sequence[Comparison],
        orders: Sequence[ModelOrder],
        datasets: Sequence[OnDataset],
        *,
        limit: int,
        offset: int,
    ) -> list[LoggedModel]:
        """A page of the models that fit; with datasets, by what was measured on one of them."""
        query = compile_search(experiment_ids, filters, orders, datasets, limit=limit, offset=offset)
        ids = [row["model_id"] for row in await self._database.fetch(query.sql, *query.arguments)]
        found = await self.many(ids)
        return [found[model_id] for model_id in ids]

    async def finalize(self, model_id: UUID, status: str) -> None:
        """Ready, or failed."""
        if not await self._database.fetch(self._sql["set_model_status"], model_id, status, _now_ms()):
            raise _missing(model_id)

    async def delete(self, model_id: UUID) -> None:
        """Deleted, be it once more; its files stay until the garbage is collected."""
        if not await self._database.fetch(self._sql["delete_model"], model_id, _now_ms()):
            raise _missing(model_id)

    async def set_tags(self, model_id: UUID, tags: Mapping[str, str]) -> None:
        """The last values stay."""
        rules.check_keys(tags)
        await self.get(model_id)
        await self._database.fetch(self._sql["set_model_tags"], model_id, *_columns(tags))

    async def delete_tag(self, model_id: UUID, key: str) -> None:
        """A tag goes."""
        await self.get(model_id)
        if not await self._database.fetch(self._sql["delete_model_tag"], model_id, key):
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"No tag with key {key!r} found for model m-{model_id.hex}.")

    async def check(self, model_ids: Collection[UUID]) -> None:
        """Raises ApiError when one of them is not there, or deleted."""
        ids = sorted(model_ids)
        known = {row["model_id"] for row in await self._database.fetch(self._sql["known_models"], ids)}
        for model_id in ids:
            if model_id not in known:
                raise _missing(model_id)

    async def log_metrics(self, run_id: UUID, metrics: Sequence[ModelMetric]) -> None:
        """What a run has measured of models that are there."""
        columns = zip(
            *[
                (one.model_id, one.key, one.step, one.time_ms, one.value, one.dataset_name, one.dataset_digest)
                for one in metrics
            ],
            strict=True,
        )
        await self._database.fetch(self._sql["log_model_metrics"], run_id, *map(list, columns))

    async def log_params(self, model_id: UUID, params: Mapping[str, str]) -> None:
        """Params that the model does not have yet."""
        rules.check_keys(params, "param")
        await self.get(model_id)
        async with self._database.connection() as connection, connection.transaction():
            stored = await connection.fetch(self._sql["log_model_params"], model_id, *_columns(params))
            if len(stored) < len(params):
                there = sorted(params.keys() - {row["key"] for row in stored})
                raise rules.invalid(f"params of a model do not change, and it has {', '.join(there)}")


def model_uuid(text: str) -> UUID:
    """The id of a logged model, `m-` and 32 hex digits. Raises ApiError 404 for what can be none."""
    if re.fullmatch("m-[0-9a-f]{32}", text):
        return UUID(text[2:])
    raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Logged model with ID '{text[:100]}' not found.")


def _columns(said: Mapping[str, str]) -> tuple[list[str], list[str]]:
    keys = sorted(said)
    return keys, [said[key] for key in keys]


def _by_model(rows: Sequence[Any]) -> dict[UUID, dict[str, str]]:
    found: dict[UUID, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["model_id"], {})[row["key"]] = row["value"]
    return found


def _missing(model_id: UUID) -> ApiError:
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Logged model with ID 'm-{model_id.hex}' not found.")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
