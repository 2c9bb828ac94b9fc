"""Whose turn it is to complete an upload: one request's at a time, over all servers of a database."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from stepstream_ingest.artifacts.stores.store import StoreAway
from stepstream_ingest.database import Database
from stepstream_ingest.errors import ApiError, DatabaseAway
from stepstream_schema import sql

LOGGER: Final = logging.getLogger(__name__)
LEASE_S: Final = 30.0
"""A turn that was not renewed for so long belonged to a server that is gone."""
RENEW_S: Final = 10.0
WAIT_S: Final = 30.0
"""Who waits longer for its turn is told to ask again: most proxies give up after a minute."""
POLL_S: Final = 0.2


class Claims:
    """Law: two requests have the turn at one upload only where one of them could not renew it.

    A turn is a lease and not a lock: joining parts takes minutes, for which no connection is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("artifacts")

    @asynccontextmanager
    async def turn(self, upload_id: UUID) -> AsyncIterator[Any]:
        """The upload's row, once nobody else is at it, or it is finished. Raises ApiError 404, StoreAway."""
        claim = UUID(bytes=os.urandom(16))
        row = await self._wait(upload_id, claim)
        renewing = asyncio.create_task(self._renew(upload_id, claim))
        try:
            yield row
        except BaseException:
            await self._release(upload_id, claim)
            raise
        finally:
            renewing.cancel()

    async def _wait(self, upload_id: UUID, claim: UUID) -> Any:
        deadline = time.monotonic() + WAIT_S
        while True:
            rows = await self._database.fetch(self._sql["claim_upload"], upload_id, claim, LEASE_S)
            if not rows:
                raise gone()
            if rows[0]["is_mine"] or rows[0]["is_finished"]:
                return rows[0]
            if time.monotonic() > deadline:
                raise StoreAway("another request is completing this upload; ask again")
            await asyncio.sleep(POLL_S)

    async def _renew(self, upload_id: UUID, claim: UUID) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._database.fetch(self._sql["renew_claim"], upload_id, claim)
            except DatabaseAway as error:
                LOGGER.warning("the turn at upload %s was not renewed: %s", upload_id.hex, error)

    async def _release(self, upload_id: UUID, claim: UUID) -> None:
        try:
            await self._database.fetch(self._sql["release_claim"], upload_id, claim)
        except DatabaseAway as error:
            LOGGER.warning("the turn at upload %s ends by itself in %.0f s: %s", upload_id.hex, LEASE_S, error)


def gone() -> ApiError:
    """The upload is in no table, or no longer under way."""
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", "this upload is complete or was given up; announce it again")
