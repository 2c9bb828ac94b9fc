"""Which files of a directory are logged, and under which paths."""

import mimetypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stepstream.errors import ArtifactError
from stepstream_schema import artifact_path


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

    A link to a file inside `root` is that file; one that leaves it is refused: it may lead to what nobody meant to log.
    """
    if not root.is_dir():
        raise ArtifactError(f"{root} is no directory; log_artifact takes single files")
    real = Path(os.path.realpath(root))
    found, refused = [], []
    for local in _walk(root):
        if not _is_below(local, real):
            refused.append(f"{local} is a link that leaves {root}; log what it leads to, if that is meant")
            continue
        if not local.is_file():
            refused.append(f"{local} is no regular file")
            continue
        try:
            found.append(LocalFile(local=local, path=joined(directory, local.relative_to(root).as_posix())))
        except ArtifactError as error:
            refused.append(str(error))
    return found, refused


def content_type(path: str) -> str:
    """By its name."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted([*names, *(each for each in folders if Path(folder, each).is_symlink())]):
            yield Path(folder, name)


def _is_below(local: Path, real_root: Path) -> bool:
    return not local.is_symlink() or Path(os.path.realpath(local)).is_relative_to(real_root)
