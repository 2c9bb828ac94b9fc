"""What is said about artifacts over HTTP, as the OpenAPI document shows it.

Requests are read file by file in `announce.py`: what is wrong with one is told of that one alone.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from stepstream_ingest.artifacts.manifest import MAX_LISTED
from stepstream_ingest.openapi import TimeMs
from stepstream_schema import limits

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Flag = Literal["", "0", "1", "false", "true"]


class Directory(Struct, kw_only=True, frozen=True):
    """What to list, and after which entry to go on."""

    path: str = ""
    recursive: Flag = ""
    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = MAX_LISTED


class Path(Struct, kw_only=True, frozen=True):
    """A file, or a directory where one can be meant."""

    path: str


class Entry(Struct, kw_only=True, frozen=True):
    """A file, or a directory with the number and size of all files below it."""

    path: str
    is_dir: bool
    size: int
    files: int | None = None
    content_type: str | None = None
    logged_at_ms: int | None = None
    rank: int | None = None
    sha256: str | None = None


class Listing(Struct, kw_only=True, frozen=True):
    """Entries in order; `next` is the next page's `after`, where there is one."""

    files: list[Entry]
    next: str | None = None


class Removed(Struct, kw_only=True, frozen=True):
    """How many files have gone."""

    removed: int


class AnnouncedFile(Struct, kw_only=True, frozen=True):
    """A file that is about to be sent; size and SHA-256 are left out where they are not known yet."""

    path: str
    logged_at_ms: TimeMs
    size: Annotated[int, Meta(ge=0, le=limits.MAX_ARTIFACT_BYTES)] | None = None
    sha256: Sha256 | None = None
    md5: str = ""
    content_type: str = ""


class Announcement(Struct, kw_only=True, frozen=True):
    """Files of one rank."""

    files: Annotated[list[AnnouncedFile], Meta(min_length=1, max_length=limits.MAX_FILES_PER_REQUEST)]
    rank: int | None = None


class HavePart(Struct, kw_only=True, frozen=True):
    """A part that has arrived before."""

    number: int
    size: int


class BegunFile(Struct, kw_only=True, frozen=True):
    """How to send it: not at all (stored), by one request (put), in parts, or it is refused."""

    state: Literal["stored", "put", "parts", "refused"]
    upload_id: str | None = None
    method: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    part_bytes: int | None = None
    checksum: str | None = None
    have: list[HavePart] = []
    code: str | None = None
    message: str | None = None


class BegunFiles(Struct, kw_only=True, frozen=True):
    """One answer a file, in order."""

    files: list[BegunFile]


class WantedPart(Struct, kw_only=True, frozen=True):
    """A part that is about to be sent."""

    number: Annotated[int, Meta(ge=1, le=limits.MAX_PARTS)]
    size: Annotated[int, Meta(ge=1)]
    checksum: str


class WantedParts(Struct, kw_only=True, frozen=True):
    """Parts to be signed."""

    parts: Annotated[list[WantedPart], Meta(min_length=1, max_length=limits.MAX_PARTS_PER_REQUEST)]


class SignedPart(Struct, kw_only=True, frozen=True):
    """The request that sends a part."""

    number: int
    method: str
    url: str
    headers: dict[str, str]


class SignedParts(Struct, kw_only=True, frozen=True):
    """One request a part."""

    parts: list[SignedPart]


class SentUpload(Struct, kw_only=True, frozen=True):
    """An upload whose bytes have been sent; size and SHA-256 where they were not announced."""

    upload_id: str
    size: Annotated[int, Meta(ge=0, le=limits.MAX_ARTIFACT_BYTES)] | None = None
    sha256: Sha256 | None = None
    checksums: list[str] = []


class SentUploads(Struct, kw_only=True, frozen=True):
    """Uploads to be listed."""

    uploads: Annotated[list[SentUpload], Meta(min_length=1, max_length=limits.MAX_FILES_PER_REQUEST)]


class CompletedFile(Struct, kw_only=True, frozen=True):
    """Whether it is listed now."""

    upload_id: str
    state: Literal["stored", "refused"]
    code: str | None = None
    message: str | None = None


class CompletedFiles(Struct, kw_only=True, frozen=True):
    """One answer an upload, in order."""

    files: list[CompletedFile]


class WantedFiles(Struct, kw_only=True, frozen=True):
    """Files to be fetched."""

    paths: Annotated[list[str], Meta(min_length=1, max_length=limits.MAX_FILES_PER_REQUEST)]


class FetchedFile(Struct, kw_only=True, frozen=True):
    """The request that fetches it, or that it is not there."""

    path: str
    state: Literal["stored", "missing"]
    size: int | None = None
    sha256: str | None = None
    method: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}


class FetchedFiles(Struct, kw_only=True, frozen=True):
    """One answer a path, in order."""

    files: list[FetchedFile]


class ArtifactCollection(Struct, kw_only=True, frozen=True):
    """What to remove: younger than `grace_s` stays; `after` is what the last answer called next."""

    grace_s: float = 86_400
    after: str = ""
    dry_run: bool = False


class CollectedArtifacts(Struct, kw_only=True, frozen=True):
    """What this step removed, or would; `next` is null at the end.

    What the store does not let go is left: then there is one step more, which is refused and says how many, and why.
    """

    uploads: int
    objects: int
    orphans: int
    bytes: int
    next: str | None


class Signature(Struct, kw_only=True, frozen=True):
    """What the server has signed; nobody else can make one."""

    signature: str


Preview = dict[str, Any]
