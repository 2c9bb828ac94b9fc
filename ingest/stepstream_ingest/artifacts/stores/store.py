"""What every object store can do, and what goes wrong with them.

Keys are made by the server (`objects/ab/ab12...`), never by a client, so no store ever sees a path that somebody chose.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol
from uuid import UUID

SIGNED_FOR_S: Final = 3600
"""How long a signed URL is good: a 5 GiB part at 12 Mbit/s; whoever is slower asks again."""

REASON_CHARS: Final = 300
"""Of what a store says when it refuses."""

Checksum = Literal["sha256", "md5", "crc32"]


class StoreAway(Exception):
    """The store cannot be reached or is too busy; trying again is safe."""


class NotDeleted(StoreAway):
    """Single objects were not let go; all others that were to be deleted are gone."""

    def __init__(self, left: Mapping[str, str]) -> None:
        """`left` has a reason for each key."""
        self.keys = frozenset(left)
        self.reason = next(iter(left.values()))[:REASON_CHARS]
        super().__init__(f"the object store has not deleted {len(left)} objects: {self.reason}")


class StoreRefused(Exception):
    """What was uploaded is not what was announced; nothing of it is kept."""


class ObjectGone(Exception):
    """An object that is listed is not in the store any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request that anybody may send as it stands, until it expires."""

    method: str
    url: str
    """Absolute; or a path of this very server, which only the client knows how to reach."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """To be sent as they are: the signature covers them where the store can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part that the store holds."""

    number: int
    """From 1."""
    size: int
    token: str
    """The store's name for it, such as an ETag."""
    checksum: str = ""
    """Base64, where the store tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the store says of one object."""

    size: int
    md5: str = ""
    """Base64, where the store tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object, or what is left of an upload in parts or of a body that broke off, found by listing the store."""

    key: str
    size: int
    modified_at: datetime
    parts_token: str | None = None
    """Set for an upload in parts."""
    is_fragment: bool = False
    """Of a body that broke off long ago: it has a key, and belongs to nobody."""


class Store(Protocol):
    """Law: an object can be read only once it is whole, and then never changes.

    Raises StoreAway, StoreRefused, and ObjectGone where an object is read.
    """

    @property
    def checksum(self) -> Checksum:
        """What the store checks the PUT of a whole object against."""

    @property
    def part_checksum(self) -> Checksum:
        """What it checks the PUT of a part against."""

    async def sign_put(self, key: str, *, size: int, checksum: str) -> Signed:
        """A PUT of a whole object; `checksum` is base64."""

    async def begin_parts(self, key: str, *, checked: bool) -> str:
        """Begin an upload in parts, each with its checksum where `checked`; the store's name for it."""

    async def sign_part(self, key: str, token: str, *, number: int, size: int | None, checksum: str | None) -> Signed:
        """A PUT of one part."""

    async def parts(self, key: str, token: str, part_bytes: int) -> Sequence[Part] | None:
        """The parts that have arrived, in order; None when there is no such upload any more."""

    async def complete_parts(self, key: str, token: str, parts: Sequence[Part], sha256: bytes | None) -> bytes | None:
        """Make them one object, unless there is one; its SHA-256 where the store has looked at every byte.

        Of two calls for the same upload the second changes nothing. Where the parts have gone, it was completed or
        given up: that is no error, and whoever looks for the object will see.
        """

    async def abort_parts(self, key: str, token: str) -> None:
        """Forget the parts; an object that was made of them stays. Raises NotDeleted where they are not let go."""

    async def seen(self, key: str) -> Seen | None:
        """What the store says of an object; None when there is none."""

    async def sign_get(self, key: str, *, filename: str, content_type: str) -> Signed:
        """A GET that a browser will save and never run."""

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of an object, piece by piece."""

    async def write(self, key: str, body: bytes) -> None:
        """A small object whose bytes this server carries."""

    async def write_part(self, key: str, token: str, number: int, body: bytes) -> None:
        """One part, of an upload that is not `checked`, whose bytes this server carries."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error. Raises NotDeleted after all have been tried."""

    def scan(self, after: str) -> AsyncIterator[Listed]:
        """Every object whose key is greater than `after`, in the order of keys; then what was never completed.

        Looks, and changes nothing.
        """

    async def close(self) -> None:
        """Close connections."""


def object_key(object_id: UUID) -> str:
    """The key of an object, spread over 256 folders."""
    return f"objects/{object_id.hex[:2]}/{object_id.hex}"


def object_id(key: str) -> UUID | None:
    """The object of a key; None when the key is none of ours."""
    try:
        found = UUID(hex=key.rpartition("/")[2])
    except ValueError:
        return None
    return found if object_key(found) == key else None


async def discard(store: Store, upload_id: UUID, parts_token: str | None) -> None:
    """Remove what has arrived of an upload whose row is gone: nobody can list it any more. Raises NotDeleted."""
    key = object_key(upload_id)
    if parts_token:
        await store.abort_parts(key, parts_token)
    await store.delete([key])


@contextmanager
def away(*errors: type[BaseException]) -> Iterator[None]:
    """Raise StoreAway for `errors`."""
    try:
        yield
    except errors as error:
        raise StoreAway(f"the object store is away: {type(error).__name__}: {error}") from error
