"""Garbage of artifacts: uploads that were given up, objects that no tree names, bytes that nobody knows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from stepstream_ingest.artifacts.stores.store import Listed, Store, discard, object_id, object_key
from stepstream_ingest.database import Database
from stepstream_schema import sql

AT_A_TIME: Final = 500
"""Rows, and objects of the store."""
OBJECTS: Final = "after object "
"""How a place among the rows begins, before an object's id; any other is a key of the store, which comes after them."""
BEFORE_ALL: Final = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step did, or in a dry run would do."""

    uploads: int
    """Given up."""
    objects: int
    """No longer named by any tree."""
    orphans: int
    """In the store, and in no table."""
    bytes: int
    next: str | None
    """To be handed to the next step; None at the end."""


class Collector:
    """Law: nothing goes that a tree names, that an upload under way needs, or that is younger than the grace.

    Rows go before bytes: a collector that is killed in between leaves bytes that the next one finds in the store.
    """

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._sql = sql.queries("artifacts")

    async def step(self, grace_s: float, after: str, seconds: float, *, dry_run: bool) -> Step:
        """Collect for about so long, from the place `after` on: "" is the start. Raises StoreAway, DatabaseAway."""
        deadline = time.monotonic() + seconds
        uploads = objects = size = 0
        if after == "":
            uploads, is_done = await self._give_up(grace_s, deadline, dry_run=dry_run)
            if not is_done:
                return Step(uploads=uploads, objects=0, orphans=0, bytes=0, next="")
        if after == "" or after.startswith(OBJECTS):
            objects, size, last = await self._forget(grace_s, _object(after), deadline, dry_run=dry_run)
            if last is not None:
                return Step(uploads=uploads, objects=objects, orphans=0, bytes=size, next=f"{OBJECTS}{last}")
            after = ""
        orphans, lost, key = await self._orphans(grace_s, after, deadline, dry_run=dry_run)
        return Step(uploads=uploads, objects=objects, orphans=orphans, bytes=size + lost, next=key)

    async def _give_up(self, grace_s: float, deadline: float, *, dry_run: bool) -> tuple[int, bool]:
        """How many, and whether there are no more."""
        if dry_run:
            found = await self._database.fetch(self._sql["count_stale_uploads"], grace_s)
            return int(found[0]["uploads"]), True
        count = 0
        while True:
            rows = await self._database.fetch(self._sql["end_stale_uploads"], grace_s, AT_A_TIME)
            for row in rows:
                await discard(self._store, row["upload_id"], row["parts_token"])
            count += len(rows)
            if len(rows) < AT_A_TIME:
                return count, True
            if time.monotonic() > deadline:
                return count, False

    async def _forget(
        self, grace_s: float, after: UUID, deadline: float, *, dry_run: bool
    ) -> tuple[int, int, UUID | None]:
        """How many, their bytes, and after which object to go on."""
        count = size = 0
        while True:
            page = await self._database.fetch(self._sql["next_objects"], grace_s, after, AT_A_TIME)
            garbage = [row for row in page if row["is_garbage"]]
            sizes = [row["size"] for row in garbage]
            if not dry_run:
                sizes = await self._remove_objects([row["object_id"] for row in garbage])
            count, size = count + len(sizes), size + sum(sizes)
            if len(page) < AT_A_TIME:
                return count, size, None
            after = page[-1]["object_id"]
            if time.monotonic() > deadline:
                return count, size, after

    async def _remove_objects(self, ids: Sequence[UUID]) -> list[int]:
        """The sizes of those that nothing has named meanwhile."""
        async with self._database.connection() as connection, connection.transaction():
            locked = await connection.fetch(self._sql["lock_objects"], ids)
            gone = await connection.fetch(self._sql["forget_objects"], [row["object_id"] for row in locked])
        await self._store.delete([object_key(row["object_id"]) for row in gone])
        return [row["size"] for row in gone]

    async def _orphans(
        self, grace_s: float, after: str, deadline: float, *, dry_run: bool
    ) -> tuple[int, int, str | None]:
        before = datetime.now(UTC) - timedelta(seconds=grace_s)
        count = size = 0
        batch: list[Listed] = []
        last = after
        async for listed in self._store.scan(after):
            batch.append(listed)
            last = max(last, listed.key) if listed.parts_token is None else last
            if len(batch) == AT_A_TIME:
                found = await self._remove_orphans(batch, before, dry_run=dry_run)
                count, size, batch = count + found[0], size + found[1], []
                # What comes after the objects has no order to go on from.
                if time.monotonic() > deadline and listed.parts_token is None and not listed.is_fragment:
                    return count, size, last
        found = await self._remove_orphans(batch, before, dry_run=dry_run)
        return count + found[0], size + found[1], None

    async def _remove_orphans(self, batch: Sequence[Listed], before: datetime, *, dry_run: bool) -> tuple[int, int]:
        old = [listed for listed in batch if listed.modified_at <= before]
        # Parts of what is whole are left over, whoever names the object.
        parts = await self._unknown("under_way", [one for one in old if one.parts_token])
        whole = await self._unknown("known_keys", [one for one in old if not one.parts_token and not one.is_fragment])
        whole += [one for one in old if one.is_fragment]
        if not dry_run:
            # Some stores list each part of an upload.
            for key, token in dict.fromkeys((one.key, one.parts_token or "") for one in parts):
                await self._store.abort_parts(key, token)
            await self._store.delete([one.key for one in whole])
        return len(parts) + len(whole), sum(one.size for one in (*parts, *whole))

    async def _unknown(self, query: str, found: Sequence[Listed]) -> list[Listed]:
        """Those whose id a query does not find; a key that is none of ours stays."""
        ids = {listed.key: one for listed in found if (one := object_id(listed.key))}
        if not ids:
            return []
        known = {row[0] for row in await self._database.fetch(self._sql[query], list(ids.values()))}
        return [listed for listed in found if listed.key in ids and ids[listed.key] not in known]


def _object(after: str) -> UUID:
    """Where to go on among the objects; a place that is none is the start."""
    try:
        return UUID(after.removeprefix(OBJECTS))
    except ValueError:
        return BEFORE_ALL
