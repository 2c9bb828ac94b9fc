"""The registry in the database."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from stepstream_ingest.database import Connection, Database
from stepstream_ingest.errors import ApiError, NameTaken
from stepstream_ingest.filters import Comparison, Order
from stepstream_ingest.keys import check_key
from stepstream_ingest.registry import rules, search
from stepstream_ingest.registry.values import Model, Version
from stepstream_schema import sql

MODEL: Final = "registered_model_id"
VERSION: Final = (MODEL, "version")
"""What the rows of a model, and of a version, are known by."""


class Registry:
    """Law: the number of a version is never used again. Raises ApiError and DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("registry")

    async def create(self, name: str, description: str, tags: Mapping[str, str]) -> None:
        """A new model."""
        rules.check_name(name)
        for key, value in tags.items():
            rules.check_tag(key, value)
        async with self._database.connection() as connection, connection.transaction():
            model = await connection.fetchval(self._sql["create_model"], name, description, _now_ms())
            if model is None:
                raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Registered Model (name={name}) already exists.")
            for key, value in sorted(tags.items()):
                await connection.execute(self._sql["set_model_tag"], model, key, value)

    async def get(self, name: str) -> Model:
        """One model."""
        found = await self.many([name])
        if not found:
            raise _missing_model(name)
        return found[0]

    async def many(self, names: Sequence[str]) -> list[Model]:
        """Models by their names, in that order."""
        rows = {row["name"]: row for row in await self._database.fetch(self._sql["models"], list(names))}
        ids = [row[MODEL] for row in rows.values()]
        tags = _grouped(await self._database.fetch(self._sql["model_tags"], ids), MODEL)
        aliases = _grouped(await self._database.fetch(self._sql["model_aliases"], ids), MODEL)
        newest = await self._database.fetch(self._sql["latest_versions"], ids)
        latest: dict[str, list[Version]] = {}
        for version in await self._versions([(row["name"], row["version"]) for row in newest]):
            latest.setdefault(version.name, []).append(version)
        owners = [(rows[name], (rows[name][MODEL],)) for name in names if name in rows]
        return [
            _model(row, tags.get(own, ()), aliases.get(own, ()), latest.get(row["name"], ())) for row, own in owners
        ]

    async def rename(self, name: str, new_name: str) -> None:
        """A new name; versions go with it."""
        rules.check_name(new_name)
        try:
            async with self._locked(name) as (connection, model):
                renamed = await connection.fetchval(self._sql["rename_model"], model, new_name, _now_ms())
        except NameTaken:
            renamed = None
        if renamed is None:
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Registered Model (name={new_name}) already exists.")

    async def describe(self, name: str, description: str) -> None:
        """A new description."""
        async with self._locked(name) as (connection, model):
            await connection.execute(self._sql["describe_model"], model, description, _now_ms())

    async def delete(self, name: str) -> None:
        """The model with its versions."""
        async with self._locked(name) as (connection, model):
            await connection.execute(self._sql["delete_model"], model)

    async def set_tag(self, name: str, key: str, value: str) -> None:
        """The last value stays."""
        rules.check_tag(key, value)
        async with self._locked(name) as (connection, model):
            await connection.execute(self._sql["set_model_tag"], model, key, value)

    async def delete_tag(self, name: str, key: str) -> None:
        """A tag goes, if it is there."""
        check_key(key, "tag")
        async with self._locked(name) as (connection, model):
            await connection.execute(self._sql["delete_model_tag"], model, key)

    async def search(
        self, filters: Sequence[Comparison], orders: Sequence[Order], *, limit: int, offset: int
    ) -> list[Model]:
        """A page of models."""
        query = search.models(filters, orders, limit=limit, offset=offset)
        return await self.many([row["name"] for row in await self._database.fetch(query.sql, *query.arguments)])

    async def create_version(
        self,
        name: str,
        *,
        source: str,
        storage_location: str,
        run_id: UUID | None,
        model_id: UUID | None,
        run_link: str,
        description: str,
        tags: Mapping[str, str],
    ) -> Version:
        """The next version."""
        for key, value in tags.items():
            rules.check_tag(key, value)
        async with self._locked(name) as (connection, model):
            now = _now_ms()
            number = await connection.fetchval(self._sql["next_version"], model, now)
            said = (source, storage_location, run_id, model_id, run_link, description, "", now)
            await connection.execute(self._sql["create_version"], model, number, *said)
            for key, value in sorted(tags.items()):
                await connection.execute(self._sql["set_version_tag"], model, number, key, value)
        return await self.version(name, number)

    async def version(self, name: str, number: int) -> Version:
        """One version."""
        found = await self._versions([(name, number)])
        if not found:
            raise _missing_version(name, number)
        return found[0]

    async def describe_version(self, name: str, number: int, description: str) -> None:
        """A new description."""
        await self._change(name, number, "describe_version", description, _now_ms())

    async def set_stage(self, name: str, number: int, stage: str, *, archive_others: bool) -> None:
        """A new stage; with `archive_others` it has one version alone."""
        stage = rules.stage(stage)
        if archive_others and stage not in ("Staging", "Production"):
            raise rules.invalid(
                f"Model version transition cannot archive existing model versions because '{stage}' is not an Active "
                "stage. Valid stages are Production, Staging"
            )
        async with self._locked(name) as (connection, model):
            now = _now_ms()
            if await connection.fetchval(self._sql["set_stage"], model, number, stage, now) is None:
                raise _missing_version(name, number)
            if archive_others:
                await connection.execute(self._sql["archive_others"], model, number, stage, now)
            await connection.execute(self._sql["touch_model"], model, now)

    async def delete_version(self, name: str, number: int) -> None:
        """The version with its aliases."""
        await self._change(name, number, "delete_version")

    async def set_version_tag(self, name: str, number: int, key: str, value: str) -> None:
        """The last value stays."""
        rules.check_tag(key, value)
        async with self._locked(name) as (connection, model):
            await self._check_version(connection, model, name, number)
            await connection.execute(self._sql["set_version_tag"], model, number, key, value)

    async def delete_version_tag(self, name: str, number: int, key: str) -> None:
        """A tag goes, if it is there."""
        check_key(key, "tag")
        async with self._locked(name) as (connection, model):
            await self._check_version(connection, model, name, number)
            await connection.execute(self._sql["delete_version_tag"], model, number, key)

    async def search_versions(
        self, filters: Sequence[Comparison], orders: Sequence[Order], *, limit: int, offset: int
    ) -> list[Version]:
        """A page of versions."""
        query = search.versions(filters, orders, limit=limit, offset=offset)
        rows = await self._database.fetch(query.sql, *query.arguments)
        return await self._versions([(row["name"], row["version"]) for row in rows])

    async def set_alias(self, name: str, alias: str, number: int) -> None:
        """An alias moves to this version."""
        rules.check_alias(alias)
        async with self._locked(name) as (connection, model):
            await self._check_version(connection, model, name, number)
            await connection.execute(self._sql["set_alias"], model, alias, number)

    async def delete_alias(self, name: str, alias: str) -> None:
        """An alias goes, if it is there."""
        rules.check_alias(alias)
        async with self._locked(name) as (connection, model):
            await connection.execute(self._sql["delete_alias"], model, alias)

    async def by_alias(self, name: str, alias: str) -> Version:
        """The version of an alias; `latest` is the newest."""
        model = await self.get(name)
        if alias.lower() == "latest":
            if not model.latest:
                raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Latest version not found for model {name}.")
            return max(model.latest, key=lambda version: version.version)
        if alias not in model.aliases:
            raise rules.invalid(f"Registered model alias {alias} not found.")
        return await self.version(name, model.aliases[alias])

    @asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[tuple[Connection, int]]:
        async with self._database.connection() as connection, connection.transaction():
            model = await connection.fetchval(self._sql["lock_model"], name)
            if model is None:
                raise _missing_model(name)
            yield connection, model

    async def _change(self, name: str, number: int, query: str, *arguments: Any) -> None:
        async with self._locked(name) as (connection, model):
            if await connection.fetchval(self._sql[query], model, number, *arguments) is None:
                raise _missing_version(name, number)
            await connection.execute(self._sql["touch_model"], model, _now_ms())

    async def _check_version(self, connection: Connection, model: int, name: str, number: int) -> None:
        if await connection.fetchval(self._sql["version_exists"], model, number) is None:
            raise _missing_version(name, number)

    async def _versions(self, wanted: Sequence[tuple[str, int]]) -> list[Version]:
        names, numbers = [name for name, _ in wanted], [number for _, number in wanted]
        rows = await self._database.fetch(self._sql["versions"], names, numbers)
        ids, numbers = [row[MODEL] for row in rows], [row["version"] for row in rows]
        tags = _grouped(await self._database.fetch(self._sql["version_tags"], ids, numbers), *VERSION)
        aliases = _grouped(await self._database.fetch(self._sql["model_aliases"], sorted(set(ids))), *VERSION)
        owners = zip(rows, zip(ids, numbers, strict=True), strict=True)
        return [_version(row, tags.get(own, ()), aliases.get(own, ())) for row, own in owners]


def _grouped(rows: Sequence[Any], *names: str) -> dict[tuple[Any, ...], list[Any]]:
    """Rows by what they belong to: a page has thousands, and each is looked at once."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _model(row: Any, tags: Sequence[Any], aliases: Sequence[Any], latest: Sequence[Version]) -> Model:
    return Model(
        name=row["name"],
        description=row["description"],
        created_at_ms=row["created_at_ms"],
        updated_at_ms=row["updated_at_ms"],
        tags={tag["key"]: tag["value"] for tag in tags},
        aliases={one["alias"]: one["version"] for one in aliases},
        latest=latest,
    )


def _version(row: Any, tags: Sequence[Any], aliases: Sequence[Any]) -> Version:
    said = {name: value for name, value in dict(row).items() if name != "registered_model_id"}
    return Version(**said, tags={tag["key"]: tag["value"] for tag in tags}, aliases=[one["alias"] for one in aliases])


def _missing_model(name: str) -> ApiError:
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={name} not found")


def _missing_version(name: str, number: int) -> ApiError:
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Model Version (name={name}, version={number}) not found")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
