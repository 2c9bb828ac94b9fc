"""One file on its way here: ranges side by side, resumed, checked, and renamed into place only when whole."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from stepstream.artifacts import plan, scratch
from stepstream.artifacts.remote import Refused, Remote
from stepstream.artifacts.scratch import Scratch
from stepstream.backoff import Backoff
from stepstream.errors import ArtifactError
from stepstream.transport import Rejected, Unavailable
from stepstream_schema import limits, paths

RANGES_AT_ONCE: Final = 4
PATIENCE_TRIES: Final = 8
"""In a row, of one request, with backoff: about half a minute."""
VERSION_TRIES: Final = 8
"""Of a file that is logged anew while it is being fetched; it then begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What of a file is already here, in its scratch place: told beside it, as JSON."""

    sha256: str | None
    size: int
    done: list[int]
    """Numbers of the parts that are whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Which state of a path is meant: the one that a signed request fetches."""

    size: int
    sha256: str | None
    name: str
    """Of its object in the store, where nobody knows the hash."""

    @classmethod
    def of(cls, signed: dict[str, Any]) -> "Version":
        """What the server has signed."""
        name = "" if signed["sha256"] else urlsplit(signed["url"])._replace(query="").geturl()
        return cls(size=signed["size"], sha256=signed["sha256"], name=name)


class Replaced(Exception):
    """Something else was logged under the path meanwhile."""


class Arriving:
    """Law: what gets the name of the file is all of it, as it was logged once, or nothing does."""

    def __init__(self, remote: Remote, run_id: str, path: str, target: Path, progress: Callable[[int], None]) -> None:
        self._remote, self._run_id, self._path, self._target = remote, run_id, path, target
        self._progress = progress
        self._done: set[int] = set()

    async def fetch(self) -> None:
        """Until it is whole. Raises ArtifactError."""
        try:
            self._make_room()
            with scratch.beside(self._target) as place:
                await self._fetch(place)
        except OSError as error:
            raise ArtifactError(f"{self._target} cannot be written: {error.strerror or error}") from error

    def _make_room(self) -> None:
        """Where it can get its name. Raises ArtifactError before anything is fetched, and OSError."""
        folder = self._target.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ArtifactError(
                f"{self._target} cannot be written: {error.filename} is in the way, or a part of its path; remove what "
                "is no directory, or fetch to another place"
            ) from error
        if self._target.is_dir():
            raise ArtifactError(
                f"{self._target} cannot be written: it is a directory; remove it, or fetch to another place"
            )

    async def _fetch(self, place: Scratch) -> None:
        for _ in range(VERSION_TRIES):
            # Not what was listed decides, but what is fetched: another may have been logged between the two.
            signed = await self._patiently(self._sign)
            version = Version.of(signed)
            self._done = self._resumable(place, version)
            if not self._done:
                os.truncate(place.file, 0)
            os.truncate(place.file, version.size)
            try:
                await self._ranges(place, version, signed)
            except Replaced:
                continue
            self._check(place, version)
            place.put(self._target)
            return
        raise ArtifactError(
            f"{self._path} was logged anew {VERSION_TRIES} times while it was being fetched; ask again once it is still"
        )

    async def _ranges(self, place: Scratch, version: Version, signed: dict[str, Any]) -> None:
        parts = plan.parts(version.size, limits.PART_BYTES)
        self._progress(sum(part.size for part in parts if part.number in self._done))
        limit = asyncio.Semaphore(RANGES_AT_ONCE)

        async def one(part: plan.PartRange) -> None:
            async with limit:
                await self._patiently(lambda: self._range(place.file, part, version, signed))
                self._done.add(part.number)
                self._remember(place, version)

        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    if part.number not in self._done:
                        group.create_task(one(part))
        except BaseExceptionGroup as errors:
            error = first(errors)
            if isinstance(error, Replaced):
                self._progress(-sum(part.size for part in parts if part.number in self._done))
            raise error from errors

    async def _range(self, out: int, part: plan.PartRange, version: Version, signed: dict[str, Any]) -> None:
        at = part.start

        def write(piece: bytes) -> None:
            nonlocal at
            done = 0
            while done < len(piece):
                # A disk that is nearly full takes a part, and says what is wrong the next time.
                done += os.pwrite(out, piece[done:] if done else piece, at + done)
            at += done
            self._progress(done)

        try:
            await self._remote.get(signed, part.start, part.size, write)
        except (Unavailable, Refused) as error:
            self._progress(part.start - at)
            if isinstance(error, Refused):
                # The signature has grown old meanwhile; or what it was for is gone, since something else is there now.
                again = await self._sign()
                if Version.of(again) != version:
                    raise Replaced from error
                signed.update(again)
                raise Unavailable(str(error)) from error
            raise

    async def _sign(self) -> dict[str, Any]:
        path = paths.run_artifacts(self._run_id) + "/urls"
        said = await self._remote.call("POST", path, {"paths": [self._path]})
        found: dict[str, Any] = said["files"][0]
        if found["state"] != "stored":
            raise ArtifactError(f"{self._path} was removed meanwhile")
        return found

    async def _patiently(self, attempt: Callable[[], Any]) -> Any:
        # Its own: ranges side by side meet the same trouble, which must not count once for each of them.
        backoff = Backoff(lambda low, high: (low + high) / 2)
        while True:
            try:
                return await attempt()
            except Unavailable as error:
                if backoff.failures >= PATIENCE_TRIES:
                    raise ArtifactError(
                        f"{self._path} cannot be fetched now ({error}); what has arrived is kept, ask again"
                    ) from error
                await asyncio.sleep(backoff.failed(error.retry_after_s))
            except (Rejected, Refused) as error:
                raise ArtifactError(f"{self._path} cannot be fetched: {error}") from error

    def _resumable(self, place: Scratch, version: Version) -> set[int]:
        if place.state is None:
            return set()
        try:
            state = Remaining(**json.loads(place.state.read_text()))
            fits = (state.sha256, state.size) == (version.sha256, version.size)
            return set(state.done) if fits and state.sha256 and place.path.stat().st_size == state.size else set()
        except (OSError, ValueError, TypeError):
            return set()

    def _remember(self, place: Scratch, version: Version) -> None:
        if place.state is not None and len(self._done) * limits.PART_BYTES < version.size:
            said = {"sha256": version.sha256, "size": version.size, "done": sorted(self._done)}
            place.state.write_text(json.dumps(said))

    def _check(self, place: Scratch, version: Version) -> None:
        if version.sha256 is None:
            return
        digest = hashlib.sha256()
        with place.path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
        if digest.hexdigest() != version.sha256:
            place.remove()
            raise ArtifactError(f"{self._path} arrived with another SHA-256 than it was logged with, and was removed")


def first(errors: BaseException) -> BaseException:
    """Of several that happened side by side."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
