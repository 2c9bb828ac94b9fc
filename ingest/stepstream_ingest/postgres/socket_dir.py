"""Where the socket of an embedded PostgreSQL lies: it asks for no password, so nobody else may reach it."""

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stepstream_ingest import private
from stepstream_ingest.errors import ServerSetupError

MAX_PATH_BYTES: Final = 107
"""What the kernel allows for the path of a socket."""
NAME_BYTES: Final = len("/.s.PGSQL.65535")


def choose(directory: Path) -> Path:
    """Beside the data where a socket can lie there, else where the system keeps such things. Raises ServerSetupError.

    Only where it must be is it a place that others may clear away: the runtime directory ends with the user's session.
    """
    problems = []
    for path in _candidates(directory):
        try:
            private.make(path)
            _try_socket(path)
        except ServerSetupError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path} takes no socket: {error.strerror}")
        else:
            return path
    raise ServerSetupError(f"PostgreSQL's socket has no place: {'; '.join(problems)}")


def _candidates(directory: Path) -> Iterator[Path]:
    beside = directory.absolute().with_name(f"{directory.name}-socket")
    # In PostgreSQL's list of directories a comma would begin another one.
    if len(os.fsencode(beside)) + NAME_BYTES <= MAX_PATH_BYTES and not set('",') & set(str(beside)):
        yield beside
    digest = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:12]
    name = f"stepstream-{os.getuid()}-{digest}"
    for base in os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp":
        if base and Path(base).is_dir() and len(os.fsencode(base)) + len(name) + NAME_BYTES < MAX_PATH_BYTES:
            yield Path(base) / name


def _try_socket(path: Path) -> None:
    # Some file systems, such as those that are shared with a virtual machine, take files and no sockets.
    probe = path / ".s.probe"
    probe.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as tried:
        tried.bind(str(probe))
    probe.unlink()
