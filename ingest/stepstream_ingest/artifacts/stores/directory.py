"""The embedded store: a directory, served by StepStream itself through URLs that it signs.

objects/ab/ab12...      whole objects
parts/ab12.../00007     part 7 of an upload, whole and on disk
incoming/...            what is being received, or joined

Completing an upload in parts reads each byte once more, to check the hash of the whole, and for that moment needs its
space twice.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

from stepstream_ingest.artifacts.stores import signature
from stepstream_ingest.artifacts.stores.signature import Permit
from stepstream_ingest.artifacts.stores.store import (
    SIGNED_FOR_S,
    Listed,
    NotDeleted,
    ObjectGone,
    Part,
    Seen,
    Signed,
    StoreAway,
    StoreRefused,
    away,
)

READ_BYTES: Final = 2**20
WRITE_BYTES: Final = 2**20
"""Received bytes are written and hashed in pieces of this size, in a thread."""
JOINED_AT_ONCE: Final = 2
"""Uploads whose parts one worker joins side by side; each keeps a thread and the disk busy."""
BROKEN_OFF_S: Final = SIGNED_FOR_S
"""What nobody has written to for so long is received no more."""


class DirectoryStore:
    """Law of every store; here one object is one file that appeared by rename after fsync."""

    checksum: Final = "sha256"
    part_checksum: Final = "sha256"

    def __init__(self, root: Path, secret: bytes) -> None:
        self._root = root
        self._secret = secret
        self._joining = asyncio.Semaphore(JOINED_AT_ONCE)
        for folder in ("objects", "parts", "incoming"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    async def sign_put(self, key: str, *, size: int, checksum: str) -> Signed:
        """A PUT of exactly these bytes."""
        return self._sign(Permit(method="PUT", key=key, size=size, checksum=checksum, expires=_expiry()))

    async def begin_parts(self, key: str, *, checked: bool) -> str:
        """The folder where parts meet."""
        with away(OSError):
            await asyncio.to_thread(self._parts(key).mkdir, parents=True, exist_ok=True)
        return "parts"

    async def sign_part(self, key: str, token: str, *, number: int, size: int | None, checksum: str | None) -> Signed:
        """A PUT of one part."""
        known = -1 if size is None else size
        permit = Permit(
            method="PUT", key=key, token=token, part=number, size=known, checksum=checksum or "", expires=_expiry()
        )
        return self._sign(permit)

    async def parts(self, key: str, token: str, part_bytes: int) -> Sequence[Part] | None:
        """What the marks say."""
        with away(OSError):
            return await asyncio.to_thread(self._marks, key)

    async def complete_parts(self, key: str, token: str, parts: Sequence[Part], sha256: bytes | None) -> bytes | None:
        """Read it all once, then rename; who waits for this keeps no thread."""
        async with self._joining:
            with away(OSError):
                return await asyncio.to_thread(self._complete, key, parts, sha256)

    async def abort_parts(self, key: str, token: str) -> None:
        """Remove the folder."""
        await asyncio.to_thread(shutil.rmtree, self._parts(key), ignore_errors=True)

    async def seen(self, key: str) -> Seen | None:
        """The file's size."""
        try:
            return Seen(size=self.path(key).stat().st_size)
        except FileNotFoundError:
            return None

    async def sign_get(self, key: str, *, filename: str, content_type: str) -> Signed:
        """A GET."""
        return self._sign(Permit(method="GET", key=key, filename=filename, type=content_type, expires=_expiry()))

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The file, in pieces."""
        with away(OSError), self._opened(key) as file:
            file.seek(start)
            left = length
            while left is None or left > 0:
                piece = await asyncio.to_thread(file.read, READ_BYTES if left is None else min(left, READ_BYTES))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    async def write(self, key: str, body: bytes) -> None:
        """One small object."""
        await self.receive(Permit(method="PUT", key=key, size=len(body), expires=0), _once(body))

    async def write_part(self, key: str, token: str, number: int, body: bytes) -> None:
        """One part."""
        permit = Permit(method="PUT", key=key, token=token, part=number, size=len(body), expires=0)
        await self.receive(permit, _once(body))

    async def delete(self, keys: Sequence[str]) -> None:
        """Unlink."""
        left: dict[str, str] = {}
        for key in keys:
            path = self._root / key if key.startswith("incoming/") else self.path(key)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                left[key] = str(error)
        if left:
            raise NotDeleted(left)

    async def scan(self, after: str) -> AsyncIterator[Listed]:
        """A folder at a time."""
        for folder in await asyncio.to_thread(lambda: sorted((self._root / "objects").iterdir())):
            for found in await asyncio.to_thread(self._in_folder, folder, after):
                yield found
        for found in await asyncio.to_thread(lambda: [*self._never_completed(), *self._broken_off()]):
            yield found

    async def close(self) -> None:
        """Holds nothing open."""

    def permit(self, method: str, key: str, query: Mapping[str, str]) -> Permit:
        """What a request may do. Raises BadSignature."""
        return signature.check(method, key, query, self._secret, time.time())

    def path(self, key: str) -> Path:
        """The file of an object. Keys are ours or signed by us; what climbs out is refused all the same."""
        path = self._root / key
        if ".." in key.split("/") or not key.startswith("objects/"):
            raise StoreRefused("no such object")
        return path

    async def receive(self, permit: Permit, body: AsyncIterator[bytes]) -> None:
        """Stream a body to disk; on any refusal nothing of it is left. Raises StoreRefused, StoreAway."""
        incoming = self._root / "incoming" / secrets.token_hex(16)
        try:
            with away(OSError):
                await self._fill(incoming, permit, body)
                await asyncio.to_thread(self._place, incoming, permit)
        except StoreAway as error:
            if isinstance(error.__cause__, ConnectionError):
                raise error.__cause__ from None  # no disk says that: it is whoever sends the body who has gone
            raise
        finally:
            incoming.unlink(missing_ok=True)

    async def _fill(self, incoming: Path, permit: Permit, body: AsyncIterator[bytes]) -> None:
        digest, size, waiting = hashlib.sha256(), 0, bytearray()
        with incoming.open("wb", buffering=0) as file:

            def write(piece: bytes) -> None:
                digest.update(piece)
                _write_all(file, piece)

            async for piece in body:
                size += len(piece)
                if 0 <= permit.size < size:
                    raise StoreRefused(f"the body is longer than the {permit.size} bytes that were announced")
                waiting += piece
                if len(waiting) >= WRITE_BYTES:
                    await asyncio.to_thread(write, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(write, bytes(waiting))
            await asyncio.to_thread(os.fsync, file.fileno())
        if 0 <= permit.size != size:
            raise StoreRefused(f"the body has {size} bytes, and {permit.size} were announced")
        if permit.checksum and base64.b64encode(digest.digest()).decode() != permit.checksum:
            raise StoreRefused("the body does not have the SHA-256 that was announced")

    def _place(self, incoming: Path, permit: Permit) -> None:
        if permit.part:
            folder = self._parts(permit.key)
            if not folder.is_dir():
                raise StoreRefused("this upload was completed or given up")
            target = folder / f"{permit.part:05d}"
        else:
            target = self.path(permit.key)
            target.parent.mkdir(exist_ok=True)
        incoming.replace(target)
        _sync_directory(target.parent)

    def _marks(self, key: str) -> Sequence[Part] | None:
        try:
            found = sorted(entry for entry in self._parts(key).iterdir() if entry.name.isdigit())
            return [Part(number=int(entry.name), size=entry.stat().st_size, token=entry.name) for entry in found]
        except FileNotFoundError:
            return None

    def _complete(self, key: str, parts: Sequence[Part], sha256: bytes | None) -> bytes | None:
        target, folder = self.path(key), self._parts(key)
        # A name of its own: should two requests join the same parts, neither writes into the other's file.
        whole = self._root / "incoming" / secrets.token_hex(16)
        try:
            found = _join([folder / part.token for part in parts], whole)
            if sha256 is not None and found != sha256:
                raise StoreRefused("the parts together do not have the SHA-256 that was announced")
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                return None
            whole.replace(target)
        except FileNotFoundError:
            return None
        finally:
            whole.unlink(missing_ok=True)
        _sync_directory(target.parent)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _opened(self, key: str) -> BinaryIO:
        try:
            return self.path(key).open("rb")
        except FileNotFoundError as error:
            raise ObjectGone("the object is gone from the store") from error

    def _parts(self, key: str) -> Path:
        return self._root / "parts" / self.path(key).name

    def _in_folder(self, folder: Path, after: str) -> list[Listed]:
        found = []
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            key = f"objects/{folder.name}/{entry.name}"
            if key > after:
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found.append(Listed(key=key, size=stat.st_size, modified_at=_utc(stat.st_mtime)))
        return found

    def _never_completed(self) -> Iterator[Listed]:
        for path in sorted((self._root / "parts").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                key, size = f"objects/{path.name[:2]}/{path.name}", _bytes_in(path)
                yield Listed(key=key, size=size, modified_at=_modified(path), parts_token="parts")

    def _broken_off(self) -> Iterator[Listed]:
        for path in sorted((self._root / "incoming").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if stat.st_mtime < time.time() - BROKEN_OFF_S:
                    modified, key = _utc(stat.st_mtime), f"incoming/{path.name}"
                    yield Listed(key=key, size=stat.st_size, modified_at=modified, is_fragment=True)

    def _sign(self, permit: Permit) -> Signed:
        return Signed(method=permit.method, url=signature.url(permit, self._secret))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    # Not all at once: what is received is copied.
    for start in range(0, len(body), WRITE_BYTES):
        yield body[start : start + WRITE_BYTES]


def _join(parts: Sequence[Path], whole: Path) -> bytes:
    """Write one file of many; the SHA-256 of what was written."""
    digest = hashlib.sha256()
    with whole.open("xb", buffering=0) as out:
        for part in parts:
            with part.open("rb", buffering=0) as file:
                while piece := file.read(READ_BYTES):
                    digest.update(piece)
                    _write_all(out, piece)
        os.fsync(out.fileno())
    return digest.digest()


def _write_all(file: FileIO, piece: bytes) -> None:
    # A disk that is nearly full takes a part of what it is given, and only then says so.
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


def _bytes_in(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def _modified(path: Path) -> datetime:
    return _utc(path.stat().st_mtime)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _expiry() -> int:
    return int(time.time()) + SIGNED_FOR_S


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
