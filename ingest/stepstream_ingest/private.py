"""Directories that no other user of this machine may look into, or have made."""

import os
import stat
from pathlib import Path

from stepstream_ingest.errors import ServerSetupError


def make(path: Path) -> None:
    """A directory that is this user's alone, made unless it is there.

    Raises ServerSetupError where it cannot be made, or is somebody else's: in a directory that all may write to,
    anybody can make one with a name that can be guessed, and what is put there would be theirs to read and replace.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ServerSetupError(f"{path} belongs to somebody else, and nothing of this server's may lie there")
        if found.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise ServerSetupError(f"the directory {path} cannot be used: {error.strerror}") from error


def is_open_to_others(path: Path) -> bool:
    """Whether other users may look into it."""
    return bool(path.stat().st_mode & 0o077)
