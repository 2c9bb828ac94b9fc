"""Where a file lies while it is being fetched: beside its place, and written to by one download alone."""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = ".stepstream-"
NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
"""This file system knows none."""
QUIET_S: Final = 3600.0
"""What was written to within this time is not removed: locks may not reach as far as the file system does."""


@dataclass(slots=True)
class Scratch:
    """One file that is not whole yet."""

    path: Path
    file: int
    """Its descriptor."""
    state: Path | None
    """What is told there, the next download goes on with; None for a place that nobody finds again."""

    def put(self, target: Path) -> None:
        """It is whole: give it its name. Raises OSError."""
        os.replace(self.path, target)
        if self.state is not None:
            self.state.unlink(missing_ok=True)

    def remove(self) -> None:
        """It is of no use. Raises OSError."""
        self.path.unlink(missing_ok=True)
        if self.state is not None:
            self.state.unlink(missing_ok=True)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Scratch]:
    """A place for `target`, which no other download, of whatever process, has at the same time. Raises OSError.

    The first has the place that later ones go on with. Who comes meanwhile has one of its own, and begins anew; so does
    everybody where the file system knows no locks.
    """
    # Not the name and more: that may be as long as a name can be.
    short = hashlib.sha256(target.name.encode()).hexdigest()[:16]
    common = target.with_name(f"{PREFIX}{short}.part")
    file = _locked(common)
    if file is not None:
        scratch = Scratch(common, file, target.with_name(f"{PREFIX}{short}.state"))
    else:
        scratch = _own(target, short)
    try:
        yield scratch
    finally:
        if scratch.state is None:
            scratch.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # where there are no locks there is none to give back
            # Not by closing it: a process that was forked meanwhile has the descriptor, too.
            fcntl.flock(scratch.file, fcntl.LOCK_UN)
        os.close(scratch.file)


def sweep(folder: Path) -> None:
    """Remove what downloads that were killed have left, and nobody goes on with. Raises OSError."""
    if not folder.is_dir():
        return
    for path in folder.glob(f"{PREFIX}*-*.part"):
        file = _locked(path, create=False)
        if file is None:
            continue
        if time.time() - os.fstat(file).st_mtime > QUIET_S:
            path.unlink(missing_ok=True)
        os.close(file)


def _own(target: Path, short: str) -> Scratch:
    while True:
        path = target.with_name(f"{PREFIX}{short}-{os.urandom(8).hex()}.part")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return Scratch(path, file, None)
            os.close(file)
            if not isinstance(error, BlockingIOError):
                raise
        else:
            if _is(path, file):
                return Scratch(path, file, None)
            os.close(file)
        # Who sweeps took it for one that was left.


def _locked(path: Path, *, create: bool = True) -> int | None:
    """Its descriptor; None where somebody has it, where it is gone, and where there are no locks."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o666)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if isinstance(error, BlockingIOError) or error.errno in NO_LOCKS:
                return None
            raise
        # Who had it may have given it its name between the two: then it is whole, and no place to write to.
        if _is(path, file):
            return file
        os.close(file)


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(file))
    except FileNotFoundError:
        return False
