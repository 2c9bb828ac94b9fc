"""Fetches artifacts: ranges side by side, resumed, checked, and renamed into place only when whole."""

import asyncio
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from stepstream.artifacts import plan
from stepstream.artifacts.remote import Refused, Remote
from stepstream.backoff import Backoff
from stepstream.errors import ArtifactError
from stepstream.progress import Bar
from stepstream.settings import Settings
from stepstream.transport import Rejected, Unavailable
from stepstream_schema import artifact_path, limits, paths

FILES_AT_ONCE: Final = 4
RANGES_AT_ONCE: Final = 4
PATIENCE_TRIES: Final = 8
"""In a row, with backoff: about half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What of a file is already here, beside it: `.stepstream-<hash of its name>.part`, and this, as JSON."""

    sha256: str | None
    size: int
    done: list[int]
    """Numbers of the parts that are whole."""


def download(settings: Settings, run_id: str, path: str, destination: Path) -> Path:
    """Fetch a file, or everything below a directory, into `destination`; where it lies then.

    Raises ArtifactError; what has arrived by then is kept beside its place, and the next call goes on with it.
    """
    result: list[Path | BaseException] = []

    def work() -> None:
        try:
            destination.mkdir(parents=True, exist_ok=True)
            result.append(asyncio.run(_download(settings, run_id, path, destination)))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            result.append(error)

    # In a thread of its own: the caller may be inside an event loop.
    thread = threading.Thread(target=work, name="stepstream-download", daemon=True)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


async def _download(settings: Settings, run_id: str, path: str, destination: Path) -> Path:
    path = path.strip("/")
    async with Remote(settings.tracking_uri, settings.token) as remote:
        try:
            files = await _tree(remote, run_id, path)
        except (Unavailable, Rejected) as error:
            raise ArtifactError(f"{settings.tracking_uri} cannot be asked for artifacts: {error}") from error
        if not files and path:
            raise ArtifactError(f"run {run_id} has no artifact {path!r}")
        progress = _Progress(sum(file["size"] for file in files))
        limit = asyncio.Semaphore(FILES_AT_ONCE)

        async def one(file: dict[str, Any]) -> None:
            async with limit:
                await _File(remote, run_id, file, _target(destination, file["path"]), progress.add).fetch()

        try:
            async with asyncio.TaskGroup() as group:
                for file in files:
                    group.create_task(one(file))
        except BaseExceptionGroup as errors:
            raise _plain(errors) from errors
        finally:
            progress.close()
    return destination / path if path else destination


async def _tree(remote: Remote, run_id: str, path: str) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    after = ""
    while True:
        query = urlencode({"path": path, "recursive": 1, "after": after})
        page = await remote.call("GET", f"{paths.run_artifacts(run_id)}?{query}")
        files += page["files"]
        if "next" not in page:
            return files
        after = page["next"]


class _File:
    """One file on its way here."""

    def __init__(
        self, remote: Remote, run_id: str, file: dict[str, Any], target: Path, progress: Callable[[int], None]
    ) -> None:
        self._remote, self._run_id, self._file, self._target = remote, run_id, file, target
        self._progress = progress
        # Not the name and more: that may be as long as a name can be.
        short = hashlib.sha256(target.name.encode()).hexdigest()[:16]
        self._part = target.with_name(f".stepstream-{short}.part")
        self._state = target.with_name(f".stepstream-{short}.state")
        self._done: set[int] = set()
        self._backoff = Backoff(lambda low, high: (low + high) / 2)

    async def fetch(self) -> None:
        """Until it is whole. Raises ArtifactError."""
        try:
            await self._fetch()
        except OSError as error:
            raise ArtifactError(f"{self._target} cannot be written: {error.strerror or error}") from error

    async def _fetch(self) -> None:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._done = self._resumable()
        mode = "r+b" if self._done else "wb"
        with self._part.open(mode) as out:
            out.truncate(self._file["size"])
            await self._ranges(out.fileno())
        self._check()
        os.replace(self._part, self._target)
        self._state.unlink(missing_ok=True)

    async def _ranges(self, out: int) -> None:
        parts = plan.parts(self._file["size"], limits.PART_BYTES)
        self._progress(sum(part.size for part in parts if part.number in self._done))
        limit = asyncio.Semaphore(RANGES_AT_ONCE)
        signed = await self._patiently(self._sign)

        async def one(part: plan.PartRange) -> None:
            async with limit:
                await self._patiently(lambda: self._range(out, part, signed))
                self._done.add(part.number)
                self._remember()

        async with asyncio.TaskGroup() as group:
            for part in parts:
                if part.number not in self._done:
                    group.create_task(one(part))

    async def _range(self, out: int, part: plan.PartRange, signed: dict[str, Any]) -> None:
        at = part.start

        def write(piece: bytes) -> None:
            nonlocal at
            os.pwrite(out, piece, at)
            at += len(piece)
            self._progress(len(piece))

        try:
            await self._remote.get(signed, part.start, part.size, write)
        except (Unavailable, Refused) as error:
            self._progress(part.start - at)
            if isinstance(error, Refused):
                # The signature has grown old meanwhile.
                signed.update(await self._sign())
                raise Unavailable(str(error)) from error
            raise

    async def _sign(self) -> dict[str, Any]:
        path = paths.run_artifacts(self._run_id) + "/urls"
        said = await self._remote.call("POST", path, {"paths": [self._file["path"]]})
        found: dict[str, Any] = said["files"][0]
        if found["state"] != "stored":
            raise ArtifactError(f"{self._file['path']} was removed meanwhile")
        return found

    async def _patiently(self, attempt: Callable[[], Any]) -> Any:
        while True:
            try:
                result = await attempt()
            except Unavailable as error:
                if self._backoff.failures >= PATIENCE_TRIES:
                    raise ArtifactError(
                        f"{self._file['path']} cannot be fetched now ({error}); what has arrived is kept, ask again"
                    ) from error
                await asyncio.sleep(self._backoff.failed(error.retry_after_s))
            except (Rejected, Refused) as error:
                raise ArtifactError(f"{self._file['path']} cannot be fetched: {error}") from error
            else:
                self._backoff.succeeded()
                return result

    def _resumable(self) -> set[int]:
        try:
            state = Remaining(**json.loads(self._state.read_text()))
            fits = (state.sha256, state.size) == (self._file["sha256"], self._file["size"])
            return set(state.done) if fits and state.sha256 and self._part.stat().st_size == state.size else set()
        except (OSError, ValueError, TypeError):
            return set()

    def _remember(self) -> None:
        if len(self._done) * limits.PART_BYTES < self._file["size"]:
            said = {"sha256": self._file["sha256"], "size": self._file["size"], "done": sorted(self._done)}
            self._state.write_text(json.dumps(said))

    def _check(self) -> None:
        expected = self._file["sha256"]
        if expected is None:
            return
        digest = hashlib.sha256()
        with self._part.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
        if digest.hexdigest() != expected:
            self._part.unlink()
            self._state.unlink(missing_ok=True)
            raise ArtifactError(
                f"{self._file['path']} arrived with another SHA-256 than it was logged with, and was removed"
            )


class _Progress:
    def __init__(self, total: int) -> None:
        self._bar, self._done, self._total = Bar("MB", scale=10**6), 0, total

    def add(self, size: int) -> None:
        self._done += size
        self._bar.show(self._done, self._total)

    def close(self) -> None:
        self._bar.show(self._done, self._total, last=True)
        self._bar.close()


def _target(destination: Path, path: str) -> Path:
    """Where a file goes; never outside of `destination`, whatever a server says and whatever links lie there."""
    problem = artifact_path.problem(path)
    if problem:
        raise ArtifactError(f"the server names an artifact {path!r:.200}, which {problem}")
    target = destination / path
    with contextlib.suppress(OSError):
        if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(destination)):
            raise ArtifactError(f"{target} would be written outside of {destination}: a link leads there")
    if target.is_symlink():
        raise ArtifactError(f"{target} is a link; it is not written through")
    return target


def _plain(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first: Sequence[BaseException] = errors.exceptions
    while isinstance(first[0], BaseExceptionGroup):
        first = first[0].exceptions
    return first[0]
