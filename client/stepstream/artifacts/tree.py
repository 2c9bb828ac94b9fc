"""Which files of a directory are logged, and under which paths."""

import mimetypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepstream.errors import ArtifactError
from stepstream_schema import artifact_path

MAX_FILES: Final = 1_000_000
"""Of one call: links to directories can make a few files many."""


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
    to what nobody meant to log, and so is one to a directory that it lies in, which would never end.
    """
    if not root.is_dir():
        raise ArtifactError(f"{root} is no directory; log_artifact takes single files")
    found: list[LocalFile] = []
    refused: list[str] = []
    for local in _Walk(root, refused).files(root, ()):
        if len(found) == MAX_FILES:
            raise ArtifactError(f"{root} holds more than {MAX_FILES:,} files; log its parts")
        try:
            found.append(LocalFile(local=local, path=joined(directory, local.relative_to(root).as_posix())))
        except ArtifactError as error:
            refused.append(str(error))
    return found, refused


def content_type(path: str) -> str:
    """By its name."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


class _Walk:
    """Goes through a directory in the order of names; says in `refused` what it leaves out."""

    def __init__(self, root: Path, refused: list[str]) -> None:
        self._root = root
        self._real_root = Path(os.path.realpath(root))
        self._refused = refused

    def files(self, folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
        """Regular files below `folder`, which was reached by way of the real directories `above`."""
        real = Path(os.path.realpath(folder))
        if real in above:
            self._refused.append(f"{folder} is a link to a directory that it lies in")
            return
        for local in self._entries(folder):
            if local.is_symlink() and not Path(os.path.realpath(local)).is_relative_to(self._real_root):
                self._refused.append(
                    f"{local} is a link that leaves {self._root}; log what it leads to, if that is meant"
                )
            elif local.is_dir():
                yield from self.files(local, (*above, real))
            elif local.is_file():
                yield local
            else:
                self._refused.append(f"{local} is no regular file")

    def _entries(self, folder: Path) -> list[Path]:
        try:
            return sorted(Path(entry) for entry in os.scandir(folder))
        except OSError as error:
            self._refused.append(f"{folder} cannot be read: {error.strerror}")
            return []
