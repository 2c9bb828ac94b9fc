"""Uploads: announced, signed, resumed, completed."""

import asyncio
import base64
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from stepstream_ingest import telemetry
from stepstream_ingest.artifacts.carried import Carried, after, beginning, heard
from stepstream_ingest.artifacts.claims import Claims, gone
from stepstream_ingest.artifacts.manifest import Entry, Manifest
from stepstream_ingest.artifacts.parts import gaps
from stepstream_ingest.artifacts.stores.store import (
    NotDeleted,
    Part,
    Signed,
    Store,
    StoreAway,
    StoreRefused,
    discard,
    object_key,
)
from stepstream_ingest.artifacts.under_way import UnderWay, surely
from stepstream_ingest.artifacts.upload import Announced, Begun, Told, Upload
from stepstream_ingest.database import Database
from stepstream_ingest.errors import ApiError, DatabaseAway
from stepstream_schema import limits, sql

LOGGER: Final = logging.getLogger(__name__)
AT_ONCE: Final = 32
"""Questions to the store that one request asks side by side."""
CARRIED_AT_ONCE: Final = 4
"""Large bodies that one worker carries to the store itself, each with one part in memory, and for the moment in which
that is put together with two: 64 to 128 MiB."""
CLOSE_S: Final = 3.0
"""For what is cut short when the server stops: what is not removed by then is garbage."""
SIGNED_AT_A_TIME: Final = 16
"""Signing takes a millisecond of the event loop each: after so many, others have a turn."""
REMEMBERED_S: Final = 86_400.0
"""Who completes an upload again within a day is told that it is stored."""
FORGOTTEN_AT_A_TIME: Final = 16
"""Older ones that go with each announcement, beside one for each file."""


class Uploads:
    """Law: a file is listed only after its object was seen in the store. Raises ApiError, DatabaseAway, StoreAway."""

    def __init__(self, database: Database, manifest: Manifest, store: Store) -> None:
        self._database = database
        self._manifest = manifest
        self._store = store
        self._claims = Claims(database)
        self._sql = sql.queries("artifacts")
        self._carrying = asyncio.Semaphore(CARRIED_AT_ONCE)
        self._under_way = UnderWay()

    @property
    def store(self) -> Store:
        """Where the objects are."""
        return self._store

    async def begin(self, owner: UUID, files: Sequence[Announced]) -> list[Begun]:
        """What to do with each file: nothing, one PUT, or parts."""
        begun: list[Begun | None] = [None] * len(files)
        await self._reuse(files, begun)
        await self._resume(owner, files, begun)
        new = [index for index, one in enumerate(begun) if one is None]
        fresh = await _gather(self._fresh(files[index]) for index in new)
        await self._record([upload for upload, _ in fresh])
        for index, (upload, put) in zip(new, fresh, strict=True):
            begun[index] = Begun(upload=upload, put=put)
        return [one for one in begun if one is not None]

    async def sign_parts(self, upload_id: UUID, parts: Sequence[tuple[int, int, str]]) -> list[Signed]:
        """PUTs for (number, size, checksum)."""
        upload = await self.upload(upload_id)
        token = _token(upload)
        return await _gather(
            self._store.sign_part(upload.key, token, number=number, size=size, checksum=checksum)
            for number, size, checksum in parts
        )

    async def upload(self, upload_id: UUID) -> Upload:
        """One that is under way. Raises ApiError 404."""
        rows = await self._database.fetch(self._sql["touch_upload"], upload_id)
        if not rows:
            raise gone()
        return Upload.of(rows[0])

    async def complete(self, upload_id: UUID, told: Told) -> None:
        """List a file whose bytes are in the store. Raises ApiError where they are not, or not as announced.

        Completing it again, or twice at the same time, does no harm.
        """
        async with self._claims.turn(upload_id) as row:
            if row["is_finished"]:
                return
            upload = Upload.of(row)
            told = replace(told, sha256=upload.sha256 or told.sha256)
            try:
                seen, found = await self._finish(upload, told)
            except StoreRefused as error:
                if not await self._end(upload_id):
                    await self._check_finished(upload_id)
                    return
                telemetry.ARTIFACTS_REFUSED.inc()
                raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{upload.entry.path}: {error}") from error
            await self._list(upload, seen, found or told.sha256)

    async def abort(self, upload_id: UUID) -> None:
        """Forget an upload, and what of it has arrived. Raises ApiError 404."""
        if not await self._end(upload_id):
            raise gone()

    async def carry(self, entry: Entry, body: AsyncIterator[bytes]) -> None:
        """List a file whose bytes come through this server, in constant memory; for clients that know no better way."""
        await self._manifest.check_place(entry.owner, entry.path)
        upload = Upload(upload_id=_new_id(), entry=entry, sha256=None, parts_token=None, part_bytes=limits.PART_BYTES)
        carried = Carried(self._store, upload.key)
        with self._under_way.one():
            try:
                await self._record([upload])
                await self._carry(upload, carried, heard(body))
            except BaseException:
                await surely(self._drop(upload, carried))
                raise

    async def close(self) -> None:
        """Wait for what was cut short, and is about to be removed."""
        left = await self._under_way.ended(CLOSE_S)
        if left:
            LOGGER.warning("%d uploads were cut short and stay until `stepstream gc`", left)

    async def begin_parts(self, entry: Entry, part_count: int) -> tuple[Upload, list[Signed]]:
        """An upload in parts whose size and hash nobody will tell, as MLflow's client makes it, and all its PUTs."""
        await self._manifest.check_place(entry.owner, entry.path)
        fresh, _ = await self._fresh(Announced(entry=entry, sha256=None, md5=""), checked=False)
        upload = replace(fresh, part_count=part_count)
        await self._record([upload])
        token, signed = _token(upload), []
        for number in range(1, part_count + 1):
            signed.append(await self._store.sign_part(upload.key, token, number=number, size=None, checksum=None))
            if number % SIGNED_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return upload, signed

    async def _carry(self, upload: Upload, carried: Carried, body: AsyncIterator[bytes]) -> None:
        first, rest = await beginning(body)
        # Only what is large waits its turn: a slow checkpoint must not hold up everybody's small files.
        async with self._carrying if rest else nullcontext():
            digest, size = await carried.write(after(first, body))
        await self._list(upload, size, digest)

    async def _drop(self, upload: Upload, carried: Carried) -> None:
        """Nobody else can: neither a client nor the upload's row knows the parts. What is listed stays."""
        try:
            ended = await self._database.fetch(self._sql["end_upload"], upload.upload_id)
            if ended or not await self._database.fetch(self._sql["is_finished"], upload.upload_id):
                await discard(self._store, upload.upload_id, carried.token)
        except (StoreAway, StoreRefused, DatabaseAway) as error:
            LOGGER.warning("what came of upload %s stays until `stepstream gc`: %s", upload.upload_id.hex, error)

    async def _list(self, upload: Upload, size: int, sha256: bytes | None) -> None:
        named = await self._manifest.list_object(replace(upload.entry, size=size), sha256, upload.upload_id)
        if named is None:
            await self._check_finished(upload.upload_id)
            return
        telemetry.ARTIFACTS.inc()
        telemetry.ARTIFACT_BYTES.inc(size)
        if named != upload.upload_id:
            # The same bytes came first by another way.
            try:
                await self._store.delete([upload.key])
            except (StoreAway, StoreRefused) as error:
                LOGGER.warning("the twin %s of an object stays until `stepstream gc`: %s", upload.key, error)

    async def _end(self, upload_id: UUID) -> bool:
        """Whether this call has given the upload up; then nothing of it is kept."""
        rows = await self._database.fetch(self._sql["end_upload"], upload_id)
        for row in rows:
            await discard(self._store, upload_id, row["parts_token"])
        return bool(rows)

    async def _check_finished(self, upload_id: UUID) -> None:
        if not await self._database.fetch(self._sql["is_finished"], upload_id):
            raise gone()

    async def _reuse(self, files: Sequence[Announced], begun: list[Begun | None]) -> None:
        hashed = [(index, file.entry, file.sha256) for index, file in enumerate(files) if file.sha256 is not None]
        for place in await self._manifest.reuse([(entry, sha256) for _, entry, sha256 in hashed]):
            begun[hashed[place][0]] = Begun()
            telemetry.ARTIFACTS_REUSED.inc()

    async def _resume(self, owner: UUID, files: Sequence[Announced], begun: list[Begun | None]) -> None:
        wanted = {
            (file.entry.path, file.entry.size, file.sha256): index
            for index, file in enumerate(files)
            if begun[index] is None and file.sha256 is not None and file.entry.size > limits.SINGLE_PUT_BYTES
        }
        if not wanted:
            return
        said = [(key, files[index].entry) for key, index in wanted.items()]
        rows = [(*key, entry.logged_at_ms, entry.content_type, entry.rank) for key, entry in said]
        columns = [list(column) for column in zip(*rows, strict=True)]
        for row in await self._database.fetch(self._sql["open_uploads"], owner, *columns):
            index = wanted[row["path"], row["size"], row["sha256"]]
            upload = Upload(
                upload_id=row["upload_id"],
                entry=files[index].entry,
                sha256=row["sha256"],
                parts_token=row["parts_token"],
                part_bytes=row["part_bytes"],
            )
            have = await self._store.parts(upload.key, _token(upload), upload.part_bytes)
            if have is not None:
                begun[index] = Begun(upload=upload, have=have)

    async def _fresh(self, file: Announced, *, checked: bool = True) -> tuple[Upload, Signed | None]:
        size = file.entry.size
        upload_id = _new_id()
        key = object_key(upload_id)
        token = put = None
        if 0 <= size <= limits.SINGLE_PUT_BYTES and file.sha256 is not None:
            checksum = base64.b64encode(file.sha256).decode() if self._store.checksum == "sha256" else file.md5
            put = await self._store.sign_put(key, size=size, checksum=checksum)
        else:
            token = await self._store.begin_parts(key, checked=checked)
        part_bytes = limits.part_bytes(size if size >= 0 else None)
        upload = Upload(
            upload_id=upload_id,
            entry=file.entry,
            sha256=file.sha256,
            parts_token=token,
            part_bytes=part_bytes,
            md5=file.md5 if put and self._store.checksum == "md5" else "",
        )
        return upload, put

    async def _record(self, uploads: Sequence[Upload]) -> None:
        if not uploads:
            return
        await self._database.fetch(
            self._sql["begin_uploads"],
            [one.upload_id for one in uploads],
            [one.entry.owner for one in uploads],
            [one.entry.path for one in uploads],
            [None if one.entry.size < 0 else one.entry.size for one in uploads],
            [one.sha256 for one in uploads],
            [one.entry.content_type for one in uploads],
            [one.entry.logged_at_ms for one in uploads],
            [one.entry.rank for one in uploads],
            [one.parts_token for one in uploads],
            [one.part_bytes for one in uploads],
            [one.md5 for one in uploads],
            [one.part_count for one in uploads],
            REMEMBERED_S,
            len(uploads) + FORGOTTEN_AT_A_TIME,
        )

    async def _finish(self, upload: Upload, told: Told) -> tuple[int, bytes | None]:
        """The size that the store has seen, and the hash where it has looked."""
        found = None
        announced = upload.entry.size if upload.entry.size >= 0 else told.size
        if upload.parts_token is not None:
            found, joined = await self._join(upload, upload.parts_token, announced, told)
            announced = joined if announced is None else announced
        seen = await self._store.seen(upload.key)
        if seen is None:
            raise ApiError(409, "PARTS_MISSING", f"{upload.entry.path} has not arrived in the store; send it again")
        if announced is not None and seen.size != announced:
            raise StoreRefused(f"the store has {seen.size} bytes, and {announced} were announced")
        if upload.md5 and seen.md5 != upload.md5:
            raise StoreRefused("what the store has does not have the MD5 that was announced")
        return seen.size, found

    async def _join(self, upload: Upload, token: str, size: int | None, told: Told) -> tuple[bytes | None, int | None]:
        """The hash of the whole, where the store has looked, and its size, where the parts were seen."""
        most = limits.MAX_PARTS * upload.part_bytes
        if size is not None and size > most:
            message = f"{upload.entry.path}: an upload whose length was open has at most {most} bytes, not {size}"
            raise ApiError(400, "INVALID_PARAMETER_VALUE", message)
        # A server that was killed after joining the parts left a whole object, and perhaps the parts.
        if await self._store.seen(upload.key) is not None:
            with suppress(NotDeleted):  # the next collection looks for them again, and says what is wrong
                await self._store.abort_parts(upload.key, token)
            return None, None
        parts = await self._store.parts(upload.key, token, upload.part_bytes)
        if parts is None:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", "the store has dropped this upload; announce it again")
        counts = [count for count in (upload.part_count, told.part_count) if count is not None]
        missing = gaps(parts, size, upload.part_bytes, *counts)
        if missing:
            raise ApiError(409, "PARTS_MISSING", f"{upload.entry.path}: {missing}; send them and complete again")
        whole = [_with_checksum(part, told.checksums) for part in parts]
        found = await self._store.complete_parts(upload.key, token, whole, told.sha256)
        return found, sum(part.size for part in parts)


async def _gather(calls: Any) -> list[Any]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(call: Any) -> Any:
        async with limit:
            return await call

    return list(await asyncio.gather(*map(one, calls)))


def _with_checksum(part: Part, checksums: Sequence[str]) -> Part:
    if part.checksum or part.number > len(checksums):
        return part
    return replace(part, checksum=checksums[part.number - 1])


def _token(upload: Upload) -> str:
    if upload.parts_token is None:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", "this upload is one PUT and has no parts")
    return upload.parts_token


def _new_id() -> UUID:
    return UUID(bytes=os.urandom(16))
