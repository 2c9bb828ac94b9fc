"""Which files of a directory are logged, and under which paths."""

import errno
import mimetypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from stepstream.errors import ArtifactError
from stepstream_schema import artifact_path

MAX_FILES: Final = 1_000_000
"""And directories, of one call: links to directories can make a few many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """One file, and where it shall lie in the tree of the run."""

    local: Path
    path: str


def joined(directory: str | None, name: str) -> str:
    """A path in the tree. Raises ArtifactError for one that cannot be used."""
    path = f"{directory.strip('/')}/{name}" if directory and directory.strip("/") else name
    problem = artifact_path.problem(path)
    if problem:
        raise ArtifactError(f"the artifact path {path!r:.200} {problem}")
    return path


def files_below(root: Path, directory: str | None) -> tuple[list[LocalFile], list[str]]:
    """Every file below `root`, and why others are left out.

    A link to a file or directory inside `root` is what it leads to. One that leaves `root` is refused, as it may lead
    to what nobody meant to log, so is one to a directory that it lies in, which would never end, and so is one that
    leads nowhere.
    """
    if not is_directory(root):
        raise ArtifactError(f"{root} is no directory; log_artifact takes single files")
    found: list[LocalFile] = []
    refused: list[str] = []
    for local in _Walk(root, refused).files():
        try:
            found.append(LocalFile(local=local, path=joined(directory, local.relative_to(root).as_posix())))
        except ArtifactError as error:
            refused.append(str(error))
    return found, refused


def is_file(local: Path) -> bool:
    """Whether it is a regular file, or leads to one. Raises ArtifactError where nobody can tell."""
    with _looking_at(local):
        return local.is_file()


def is_directory(local: Path) -> bool:
    """Whether it is a directory, or leads to one. Raises ArtifactError where nobody can tell."""
    with _looking_at(local):
        return local.is_dir()


@contextmanager
def _looking_at(local: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{local} cannot be read: {error.strerror or error}") from error


def content_type(path: str) -> str:
    """By its name."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


class _Walk:
    """Goes through a directory in the order of names; says in `refused` what it leaves out."""

    def __init__(self, root: Path, refused: list[str]) -> None:
        self._root = root
        self._real_root = Path(os.path.realpath(root))
        self._refused = refused
        self._seen = 0

    def files(self) -> Iterator[Path]:
        """Regular files below. Raises ArtifactError for too many of whatever kind."""
        # The real directories by way of which each was reached. No recursion: paths may be deeper than Python's stack.
        under_way: list[tuple[Iterator[Path], frozenset[Path]]] = []
        self._enter(self._root, frozenset(), under_way)
        while under_way:
            entries, above = under_way[-1]
            local = next(entries, None)
            if local is None:
                under_way.pop()
                continue
            self._seen += 1
            if self._seen > MAX_FILES:
                raise ArtifactError(f"{self._root} holds more than {MAX_FILES:,} files and directories; log its parts")
            match self._kind(local):
                case "directory":
                    self._enter(local, above, under_way)
                case "file":
                    yield local

    def _enter(
        self, folder: Path, above: frozenset[Path], under_way: list[tuple[Iterator[Path], frozenset[Path]]]
    ) -> None:
        real = Path(os.path.realpath(folder))
        if real in above:
            self._refused.append(f"{folder} is a link to a directory that it lies in")
            return
        try:
            entries = sorted(Path(entry) for entry in os.scandir(folder))
        except OSError as error:
            self._refused.append(f"{folder} cannot be read: {error.strerror}")
            return
        under_way.append((iter(entries), above | {real}))

    def _kind(self, local: Path) -> Literal["directory", "file"] | None:
        is_link = os.path.islink(local)  # what cannot be looked at is told below
        if is_link and not Path(os.path.realpath(local)).is_relative_to(self._real_root):
            self._refused.append(f"{local} is a link that leaves {self._root}; log what it leads to, if that is meant")
            return None
        try:
            mode = local.stat().st_mode
        except OSError as error:
            is_broken = is_link and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            self._refused.append(
                f"{local} is a link that leads nowhere" if is_broken else f"{local} cannot be read: {error.strerror}"
            )
            return None
        if stat.S_ISDIR(mode):
            return "directory"
        if stat.S_ISREG(mode):
            return "file"
        self._refused.append(f"{local} is no regular file")
        return None
