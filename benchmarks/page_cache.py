"""A machine that has been up for a while: its free memory is full of files nobody needs any more."""

import re
from pathlib import Path
from typing import Final

import psutil

LEFT_FREE: Final = 2**28
READ_BYTES: Final = 2**20
MEMINFO: Final = Path("/proc/meminfo")


def fill(file: Path) -> None:
    """Read holes of the sparse `file` until free memory is used for them. Does nothing where there is no /proc.

    A virtual machine that gives free memory back to its host pays for each page once more at the first write: two
    seconds of CPU a gigabyte where this was written, more than a store takes for all else, and more or less of it for
    whoever comes first. Memory that holds a clean page costs nothing to take.
    """
    if not MEMINFO.exists():
        return
    with file.open("ab") as sparse:
        sparse.truncate(psutil.virtual_memory().total)
    with file.open("rb", buffering=0) as holes:
        # What is there already is read again in a moment; what was taken since, or given back, is filled anew.
        while _free() > LEFT_FREE and holes.read(READ_BYTES):
            pass


def _free() -> int:
    found = re.search(r"MemFree:\s+(\d+) kB", MEMINFO.read_text())
    return int(found[1]) * 1024 if found else 0
