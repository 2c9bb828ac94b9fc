"""Folders with event files below one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

EVENTS: Final = "tfevents"


def folders(root: Path, unread: Callable[[OSError], None]) -> Iterator[Path]:
    """Each once, also those that links lead to: by its own name where it lies below the root, else by a link's."""
    seen: set[tuple[int, int]] = set()
    tops = [str(root)]
    for top in tops:
        for folder, below, names in os.walk(top, onerror=unread):
            try:
                there = os.stat(folder)
            except OSError as error:
                unread(error)
                continue
            if (there.st_dev, there.st_ino) in seen:
                below.clear()
                continue
            seen.add((there.st_dev, there.st_ino))
            below.sort()
            # Later, when all that has a name of its own is known; and a link to what lies above it ends there.
            tops += [path for path in (os.path.join(folder, name) for name in below) if os.path.islink(path)]
            if any(EVENTS in name for name in names):
                yield Path(folder)


def files(folder: Path) -> list[Path]:
    """Its event files, by name and so by age; links that lead nowhere among them. Raises OSError."""
    return sorted(path for path in folder.iterdir() if EVENTS in path.name and not path.is_dir())
