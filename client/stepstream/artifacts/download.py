"""Fetches artifacts: a file, or a tree of them."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlencode

from stepstream.artifacts import scratch
from stepstream.artifacts.arriving import Arriving, first
from stepstream.artifacts.remote import Remote
from stepstream.errors import ArtifactError
from stepstream.progress import Bar
from stepstream.settings import Settings
from stepstream.transport import Rejected, Unavailable
from stepstream_schema import artifact_path, paths

FILES_AT_ONCE: Final = 4


def download(settings: Settings, run_id: str, path: str, destination: Path) -> Path:
    """Fetch a file, or everything below a directory, into `destination`; where it lies then.

    Raises ArtifactError; what has arrived by then is kept beside its place, and the next call goes on with it.
    """
    result: list[Path | BaseException] = []

    def work() -> None:
        try:
            _make(destination)
            with asyncio.Runner() as runner:
                result.append(runner.run(_download(settings, run_id, path, destination)))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            result.append(error)

    # In a thread of its own: the caller may be inside an event loop.
    thread = threading.Thread(target=work, name="stepstream-download", daemon=True)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        # As where there are no descriptors left for an event loop.
        raise ArtifactError(f"artifacts of run {run_id} cannot be fetched: {result[0]}") from result[0]
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _make(destination: Path) -> None:
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{destination} cannot be made: {error.filename} is in the way, or a part of its path; fetch to another "
            "place"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{destination} cannot be made: {error.strerror or error}") from error


async def _download(settings: Settings, run_id: str, path: str, destination: Path) -> Path:
    path = path.strip("/")
    async with Remote(settings.tracking_uri, settings.token) as remote:
        try:
            files = await _tree(remote, run_id, path)
        except (Unavailable, Rejected) as error:
            raise ArtifactError(f"{settings.tracking_uri} cannot be asked for artifacts: {error}") from error
        if not files and path:
            raise ArtifactError(f"run {run_id} has no artifact {path!r}")
        files, hidden = _apart(files)
        for folder in {(destination / file["path"]).parent for file in files}:
            # What cannot be removed is in nobody's way.
            with contextlib.suppress(OSError):
                scratch.sweep(folder)
        progress = _Progress(sum(file["size"] for file in files))
        limit = asyncio.Semaphore(FILES_AT_ONCE)

        async def one(file: dict[str, Any]) -> None:
            async with limit:
                await Arriving(remote, run_id, file["path"], _target(destination, file["path"]), progress.add).fetch()

        try:
            async with asyncio.TaskGroup() as group:
                for file in files:
                    group.create_task(one(file))
        except BaseExceptionGroup as errors:
            raise first(errors) from errors
        finally:
            progress.close()
    if hidden:
        raise ArtifactError(_what_is_hidden(settings.tracking_uri, run_id, hidden, len(files)))
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


def _apart(files: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """What can lie on a disk side by side, and paths of files that others lie below, as in no directory they can."""
    folders = {str(folder) for file in files for folder in PurePosixPath(file["path"]).parents}
    return (
        [file for file in files if file["path"] not in folders],
        [file["path"] for file in files if file["path"] in folders],
    )


def _what_is_hidden(tracking_uri: str, run_id: str, hidden: Sequence[str], fetched: int) -> str:
    named = ", ".join(map(repr, hidden[:5])) + (", ..." if len(hidden) > 5 else "")
    query = urlencode({"path": hidden[0]})
    return (
        f"run {run_id} has artifacts that are files and directories at once, which no disk can hold: {named}; these "
        f"files were left out, and all {fetched} others are fetched. The bytes of such a file are at "
        f"{tracking_uri}{paths.run_artifacts(run_id)}/content?{query}"
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
    try:
        is_link = target.is_symlink()
    except OSError as error:
        raise ArtifactError(f"{target} cannot be written: {error.strerror or error}") from error
    if is_link:
        raise ArtifactError(f"{target} is a link; it is not written through")
    return target
