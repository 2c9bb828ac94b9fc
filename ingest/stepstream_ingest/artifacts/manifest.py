"""What is listed in the trees of artifacts, in the database. Law: what is listed can be fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from stepstream_ingest.artifacts.stores.store import object_key
from stepstream_ingest.database import Connection, Database
from stepstream_ingest.errors import ApiError
from stepstream_schema import artifact_path, sql

MAX_LISTED: Final = 1000
"""Entries of one page."""
ADVICE: Final = "log it to another path, or remove that first"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a tree."""

    path: str
    key: str
    """Of its object in the store."""
    size: int
    content_type: str
    sha256: str | None
    """Hexadecimal; None where only the store has seen the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file that is to be listed, once its object is there."""

    owner: UUID
    path: str
    size: int
    content_type: str
    logged_at_ms: int
    rank: int | None


class Manifest:
    """Reads and writes the trees. Raises ApiError and DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("artifacts")

    async def children(self, owner: UUID, directory: str, after: str, limit: int) -> list[dict[str, Any]]:
        """What lies directly in a directory, by name, after a place."""
        prefix = f"{directory}/" if directory else ""
        rows = await self._database.fetch(self._sql["children"], owner, prefix, after, limit)
        return [_child(prefix, row) for row in rows]

    async def tree(self, owner: UUID, directory: str, after: str, limit: int) -> list[dict[str, Any]]:
        """Every file below a directory, or the file itself, by path."""
        rows = await self._database.fetch(self._sql["tree"], owner, directory, after, limit)
        return [dict(row) | {"is_dir": False} for row in rows]

    async def files(self, owner: UUID, paths: Sequence[str]) -> dict[str, File]:
        """Single files; what is not there is left out."""
        rows = await self._database.fetch(self._sql["files"], owner, list(paths))
        return {
            row["path"]: File(
                path=row["path"],
                key=object_key(row["object_id"]),
                size=row["size"],
                content_type=row["content_type"],
                sha256=row["sha256"],
            )
            for row in rows
        }

    async def file(self, owner: UUID, path: str) -> File:
        """One file. Raises ApiError 404."""
        found = (await self.files(owner, [path])).get(path)
        if found is None:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no artifact {path!r:.300} in this run")
        return found

    async def remove(self, owner: UUID, path: str) -> int:
        """Take a file, or all below a directory, from the tree; how many files."""
        async with self._database.connection() as connection:
            tag = await connection.execute(self._sql["remove"], owner, path)
        return int(tag.rpartition(" ")[2])

    async def check_run(self, owner: UUID) -> None:
        """Raise ApiError 404 where there is no such run."""
        if not await self._database.fetch(self._sql["run_stage"], owner):
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no run {owner.hex}")

    async def admit(self, owner: UUID) -> None:
        """Raise ApiError where nothing may be added to the run; make room for one that is not announced yet."""
        rows = await self._database.fetch(self._sql["run_stage"], owner)
        if not rows:
            await self._database.fetch(self._sql["place_run"], owner)
        elif rows[0]["lifecycle_stage"] != "active":
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"run {owner.hex} is deleted; restore it to add artifacts")

    async def check_place(self, owner: UUID, path: str) -> None:
        """Raise ApiError where a file would hide another, or be hidden."""
        (problem,) = await self.hidden(owner, [path])
        if problem is not None:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", problem)

    async def hidden(self, owner: UUID, paths: Sequence[str]) -> list[str | None]:
        """For each of the files that are to be listed what would hide it, or it would hide: of two the first has it.

        No tree on a disk holds both, so that one of them would be missing where both are fetched. A file that is listed
        may be logged again, whatever else has its name.
        """
        above = {directory for path in paths for directory in artifact_path.directories(path)}
        rows = await self._database.fetch(self._sql["in_the_way"], owner, list(above), list(paths))
        known = {row["file"] for row in rows if row["directory"] is None}
        files = set(known)
        holding = {row["directory"]: row["file"] for row in rows if row["directory"] is not None}
        problems: list[str | None] = []
        for path in paths:
            directories = artifact_path.directories(path)
            file = next((one for one in directories if one in files), None)
            if path in known:
                problems.append(None)
            elif file is not None:
                problems.append(f"{path!r:.300} is not stored: {file!r:.300} is a file; {ADVICE}")
            elif path in holding:
                problems.append(f"{path!r:.300} is not stored: it is a directory, of {holding[path]!r:.300}; {ADVICE}")
            else:
                files.add(path)
                holding |= dict.fromkeys(directories, path)
                problems.append(None)
        return problems

    async def reuse(self, entries: Sequence[tuple[Entry, bytes]]) -> set[int]:
        """List what the store holds already, by SHA-256; the indexes of those entries."""
        hashes = [sha256 for _, sha256 in entries]
        async with self._database.connection() as connection, connection.transaction():
            rows = await connection.fetch(self._sql["reuse_objects"], hashes, [entry.size for entry, _ in entries])
            known = {(row["sha256"], row["size"]): row["object_id"] for row in rows}
            found = {
                index: known[sha256, entry.size]
                for index, (entry, sha256) in enumerate(entries)
                if (sha256, entry.size) in known
            }
            await self._list(connection, [(entries[index][0], object_id) for index, object_id in found.items()])
        return set(found)

    async def list_object(self, entry: Entry, sha256: bytes | None, upload_id: UUID) -> UUID | None:
        """Finish an upload, and list its object, which the store holds; the object that the tree names.

        That may be an older twin; None, and nothing is listed, where the upload was finished or given up before.
        """
        async with self._database.connection() as connection, connection.transaction():
            said = await connection.fetchrow(self._sql["finish_upload"], upload_id)
            if said is None:
                return None
            # The same file may have been announced again since the entry was read.
            entry = replace(entry, **said)
            object_id = await self._stored(connection, upload_id, entry.size, sha256)
            await self._list(connection, [(entry, object_id)])
        return object_id

    async def _stored(self, connection: Connection, object_id: UUID, size: int, sha256: bytes | None) -> UUID:
        # A twin may be collected between the two questions: then there is room for this one.
        while await connection.fetchval(self._sql["store_object"], object_id, size, sha256) is None:
            twin: UUID | None = await connection.fetchval(self._sql["same_object"], sha256, size)
            if twin is not None:
                return twin
        return object_id

    async def _list(self, connection: Connection, entries: Sequence[tuple[Entry, UUID]]) -> None:
        if not entries:
            return
        await connection.execute(
            self._sql["list_in_manifest"],
            [entry.owner for entry, _ in entries],
            [entry.path for entry, _ in entries],
            [object_id for _, object_id in entries],
            [entry.size for entry, _ in entries],
            [entry.content_type for entry, _ in entries],
            [entry.logged_at_ms for entry, _ in entries],
            [entry.rank for entry, _ in entries],
        )


def checked(path: str) -> str:
    """A path that can be used. Raises ApiError."""
    found = artifact_path.problem(path)
    if found:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Invalid path: {path!r:.200} {found}")
    return path


def checked_directory(path: str) -> str:
    """The same, where '' is the whole tree."""
    path = path.strip("/") if path in ("", "/", ".") else path.removesuffix("/")
    return checked(path) if path not in ("", ".") else ""


def place_of(child: Mapping[str, Any]) -> str:
    """Where a listing of a directory goes on after an entry."""
    name: str = child["path"].rpartition("/")[2]
    return f"{name}/" if child["is_dir"] else name


def _child(prefix: str, row: Any) -> dict[str, Any]:
    said = {"path": prefix + row["name"], "is_dir": not row["is_file"], "size": row["size"]}
    if not row["is_file"]:
        return said | {"files": row["files"]}
    return said | {name: row[name] for name in ("content_type", "logged_at_ms", "rank", "sha256")}
