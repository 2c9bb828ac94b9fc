"""One upload: what is announced, what is told at its end, and what its client shall do. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from stepstream_ingest.artifacts.manifest import Entry
from stepstream_ingest.artifacts.stores.store import Part, Signed, object_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """One file that a client wants to send."""

    entry: Entry
    """Its size is -1 where it is not known yet."""
    sha256: bytes | None
    """None where it is not known yet."""
    md5: str
    """Base64; only for stores that check MD5, and only for files that are sent whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client says of an upload once it has sent it."""

    size: int | None = None
    """Where it was not announced."""
    sha256: bytes | None = None
    """Where it was not announced."""
    checksums: Sequence[str] = ()
    """Of the parts, in order, for stores that check them and do not keep them."""
    part_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One that is under way."""

    upload_id: UUID
    entry: Entry
    sha256: bytes | None
    parts_token: str | None
    part_bytes: int
    md5: str = ""
    """Base64; what the store will have seen of a file that was sent whole, where it checks that."""
    part_count: int | None = None
    """Where it was said when the upload began."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Upload":
        """As the database has it."""
        entry = Entry(
            owner=row["owner"],
            path=row["path"],
            size=-1 if row["size"] is None else row["size"],
            content_type=row["content_type"],
            logged_at_ms=row["logged_at_ms"],
            rank=row["rank"],
        )
        return cls(
            upload_id=row["upload_id"],
            entry=entry,
            sha256=row["sha256"],
            parts_token=row["parts_token"],
            part_bytes=row["part_bytes"],
            md5=row["md5"],
            part_count=row["part_count"],
        )

    @property
    def key(self) -> str:
        """The key of the object that it will be."""
        return object_key(self.upload_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What the client shall do with one file."""

    upload: Upload | None = None
    """None: the store holds it already, and it is listed."""
    put: Signed | None = None
    """Send it whole, by this request."""
    have: Sequence[Part] = ()
    """Send it in parts; these are there."""
