"""A body that comes through this server to the store, in constant memory."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from stepstream_ingest import telemetry
from stepstream_ingest.artifacts.stores.store import Store, StoreAway
from stepstream_ingest.errors import ApiError
from stepstream_schema import limits

SMALL_BYTES: Final = 2**20
"""What is smaller is carried at once."""
SILENCE_S: Final = 60.0
"""So long a body is waited for, again each time that LEAST_BYTES have come: others wait for the place of one that is
silent, or is kept alive by single bytes."""
LEAST_BYTES: Final = 64 * 2**10
"""1 kB/s, which each of many uploads by one slow line has."""


class Carried:
    """One object that is being written; what there is of it has a key and, once there are parts, a token."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self.token: str | None = None

    async def write(self, body: AsyncIterator[bytes]) -> tuple[bytes, int]:
        """The SHA-256 and the size of what the store has. Raises StoreAway, StoreRefused, and what `body` raises."""
        digest, size, number = hashlib.sha256(), 0, 0
        async for part, is_last in _parts(body):
            await _hash(digest, part)
            size, number = size + len(part), number + 1
            if is_last and self.token is None:
                await self._store.write(self._key, part)
                return digest.digest(), size
            if self.token is None:
                self.token = await self._store.begin_parts(self._key, checked=False)
            if part:
                await self._store.write_part(self._key, self.token, number, part)
            # The next one is gathered without it.
            del part
        await self._join(digest.digest(), size)
        return digest.digest(), size

    async def _join(self, sha256: bytes, size: int) -> None:
        token = self.token or ""
        parts = await self._store.parts(self._key, token, limits.PART_BYTES) or ()
        await self._store.complete_parts(self._key, token, parts, sha256)
        seen = await self._store.seen(self._key)
        if seen is None or seen.size != size:
            raise StoreAway(f"the object store does not have the {size} bytes that were sent; send them again")


async def heard(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, while it comes. Raises ApiError 408 where it does not.

    Only the time counts for which the sender is waited for, and not what the store takes in between.
    """
    pieces, left, size = aiter(body), SILENCE_S, 0
    while True:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(left):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            telemetry.REQUESTS_TURNED_AWAY.labels("body silent").inc()
            message = f"no more than {size} bytes of the body came in {SILENCE_S:g} s; nothing is kept, send it again"
            raise ApiError(408, "REQUEST_TIMEOUT", message) from error
        left, size = left - (time.monotonic() - begun), size + len(piece)
        if size >= LEAST_BYTES:
            left, size = SILENCE_S, 0
        yield piece


async def beginning(body: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The first bytes, and whether there may be more."""
    first = bytearray()
    async for piece in body:
        first += piece
        if len(first) >= SMALL_BYTES:
            return bytes(first), True
    return bytes(first), False


async def after(first: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The whole again."""
    yield first
    async for piece in body:
        yield piece


async def _hash(digest: Any, part: bytes) -> None:
    if len(part) <= SMALL_BYTES:
        digest.update(part)
    else:
        await asyncio.to_thread(digest.update, part)


async def _parts(body: AsyncIterator[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """Parts of one size, and whether each is the last, which is shorter and may be empty."""
    waiting: list[bytes] = []
    size = 0
    async for piece in body:
        room = limits.PART_BYTES - size
        waiting.append(piece[:room])
        size += len(waiting[-1])
        if size == limits.PART_BYTES:
            part = b"".join(waiting)
            waiting, size = [piece[room:]], len(piece) - room
            yield part, False
            del part
    yield b"".join(waiting), True
