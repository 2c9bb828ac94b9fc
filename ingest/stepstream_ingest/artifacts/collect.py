"""Garbage of artifacts: uploads that were given up, objects that no tree names, bytes that nobody knows."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from stepstream_ingest.artifacts.stores.store import (
    Listed,
    NotDeleted,
    Store,
    StoreAway,
    discard,
    object_id,
    object_key,
)
from stepstream_ingest.database import Database
from stepstream_schema import sql

LOGGER: Final = logging.getLogger(__name__)
AT_A_TIME: Final = 500
"""Rows, and objects of the store."""
OBJECTS: Final = "after object "
"""How a place among the rows begins, before an object's id; any other is a key of the store, which comes after them."""
LEFT: Final = "left "
"""How a place in the store begins once something was left there; then how many objects, why, and the key, or none."""
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


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What was found by going through the store, and what of it could not be removed, which is told at the end."""

    orphans: int = 0
    bytes: int = 0
    left: int = 0
    reason: str = ""

    def keep(self, error: NotDeleted) -> None:
        """These were not let go."""
        self.left += len(error.keys)
        self.reason = self.reason or error.reason

    def place(self, key: str | None) -> str | None:
        """Where the next step goes on."""
        return LEFT + orjson.dumps([self.left, self.reason, key]).decode() if self.left else key


class Collector:
    """Law: nothing goes that a tree names, that an upload under way needs, or that is younger than the grace.

    Rows go before bytes: a collector that is killed in between leaves bytes that the next one finds in the store.
    """

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._sql = sql.queries("artifacts")

    async def step(self, grace_s: float, after: str, seconds: float, *, dry_run: bool) -> Step:
        """Collect for about so long, from the place `after` on: "" is the start. Raises StoreAway, DatabaseAway.

        What the store does not let go keeps nothing else: a last step, which does nothing, raises StoreAway for it.
        """
        deadline = time.monotonic() + seconds
        left, reason, place = _left(after)
        if place is None:
            raise StoreAway(f"all garbage is removed but {left} objects, which the store does not delete: {reason}")
        uploads = objects = size = 0
        if place == "":
            uploads, is_done = await self._give_up(grace_s, deadline, dry_run=dry_run)
            if not is_done:
                return Step(uploads=uploads, objects=0, orphans=0, bytes=0, next="")
        if place == "" or place.startswith(OBJECTS):
            objects, size, last = await self._forget(grace_s, _object(place), deadline, dry_run=dry_run)
            if last is not None:
                return Step(uploads=uploads, objects=objects, orphans=0, bytes=size, next=f"{OBJECTS}{last}")
            place = ""
        seen = _Seen(left=left, reason=reason)
        key = await self._orphans(seen, grace_s, place, deadline, dry_run=dry_run)
        return Step(
            uploads=uploads, objects=objects, orphans=seen.orphans, bytes=size + seen.bytes, next=seen.place(key)
        )

    async def _give_up(self, grace_s: float, deadline: float, *, dry_run: bool) -> tuple[int, bool]:
        """How many, and whether there are no more."""
        if dry_run:
            found = await self._database.fetch(self._sql["count_stale_uploads"], grace_s)
            return int(found[0]["uploads"]), True
        count = 0
        while True:
            rows = await self._database.fetch(self._sql["end_stale_uploads"], grace_s, AT_A_TIME)
            for row in rows:
                try:
                    await discard(self._store, row["upload_id"], row["parts_token"])
                except NotDeleted as error:
                    _tried_again(error)
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
        keys = {object_key(row["object_id"]): row["size"] for row in gone}
        try:
            await self._store.delete(list(keys))
        except NotDeleted as error:
            _tried_again(error)
            keys = {key: size for key, size in keys.items() if key not in error.keys}
        return list(keys.values())

    async def _orphans(self, seen: _Seen, grace_s: float, after: str, deadline: float, *, dry_run: bool) -> str | None:
        """After which key to go on."""
        before = datetime.now(UTC) - timedelta(seconds=grace_s)
        batch: list[Listed] = []
        last = after
        async for listed in self._store.scan(after):
            batch.append(listed)
            last = max(last, listed.key) if listed.parts_token is None else last
            if len(batch) == AT_A_TIME:
                await self._remove_orphans(seen, batch, before, dry_run=dry_run)
                batch = []
                # What comes after the objects has no order to go on from.
                if time.monotonic() > deadline and listed.parts_token is None and not listed.is_fragment:
                    return last
        await self._remove_orphans(seen, batch, before, dry_run=dry_run)
        return None

    async def _remove_orphans(self, seen: _Seen, batch: Sequence[Listed], before: datetime, *, dry_run: bool) -> None:
        old = [listed for listed in batch if listed.modified_at <= before]
        # Parts of what is whole are left over, whoever names the object.
        parts = await self._unknown("under_way", [one for one in old if one.parts_token])
        whole = await self._unknown("known_keys", [one for one in old if not one.parts_token and not one.is_fragment])
        whole += [one for one in old if one.is_fragment]
        if not dry_run:
            # Some stores list each part of an upload.
            for key, token in dict.fromkeys((one.key, one.parts_token or "") for one in parts):
                try:
                    await self._store.abort_parts(key, token)
                except NotDeleted as error:
                    parts = [one for one in parts if (one.key, one.parts_token) != (key, token)]
                    seen.keep(error)
            try:
                await self._store.delete([one.key for one in whole])
            except NotDeleted as error:
                whole = [one for one in whole if one.key not in error.keys]
                seen.keep(error)
        seen.orphans += len(parts) + len(whole)
        seen.bytes += sum(one.size for one in (*parts, *whole))

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


def _left(after: str) -> tuple[int, str, str | None]:
    """How many objects were left before this place, why, and the place, which is None at the end."""
    if not after.startswith(LEFT):
        return 0, "", after
    try:
        match orjson.loads(after.removeprefix(LEFT)):
            case [int(left), str(reason), str() | None as key]:
                return left, reason, key
    except ValueError:
        return 0, "", ""  # no place that was handed out: from the start
    return 0, "", ""


def _tried_again(error: NotDeleted) -> None:
    LOGGER.warning("%s; they are tried again with what is in the store and in no table", error)
