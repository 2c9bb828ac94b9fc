"""Segments whose writer is gone: which they are, and how exactly one process takes each."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

from stepstream import process
from stepstream.errors import SpoolDamaged
from stepstream.process import ProcessId
from stepstream.spool import names
from stepstream.spool.segment import SegmentHeader, read_header

FOREIGN_QUIET_S: Final = 3600.0
"""A segment that another host was still writing to is left alone until it has been quiet for this long."""

Verdict: TypeAlias = Literal["take", "alive", "foreign", "recent"]


def find_segments(directory: Path) -> Iterator[Path]:
    """Segment files of the directory, whatever else lies there."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if names.parse(Path(entry.name)) is not None:
                    yield Path(entry.path)
    except FileNotFoundError:
        return


def header_of(path: Path) -> SegmentHeader:
    """The segment's header. Raises SpoolDamaged or OSError."""
    with path.open("rb") as file:
        return read_header(file)


def look(path: Path) -> tuple[SegmentHeader, bool]:
    """The segment's header, and whether anything lies behind it. Raises SpoolDamaged or OSError."""
    with path.open("rb") as file:
        return read_header(file), bool(file.read(1))


def holds_frames(path: Path) -> bool:
    """Whether anything lies behind the header; where that is damaged nobody can tell, and anything counts."""
    try:
        return look(path)[1]
    except SpoolDamaged:
        return path.stat().st_size > 0


def verdict(
    *, state: str, owner: ProcessId, here: ProcessId, quiet_s: float, everything: bool, claimer_dead: bool | None
) -> Verdict:
    """Whether a segment may be taken.

    On this host: when its writer has ended its run, or when its writer, or the process that had claimed it, is dead.
    From another host: only when `everything` is asked for, and one that may still be written to, or is being
    delivered, only after a quiet hour.
    """
    dead = claimer_dead if state.startswith("claim-") else process.is_dead(owner, here)
    if dead is not None:
        return "take" if dead else "alive"
    if not everything:
        return "foreign"
    return "take" if state == "seg" or names.is_left(state) or quiet_s >= FOREIGN_QUIET_S else "recent"


def judge(path: Path, header: SegmentHeader, *, everything: bool) -> Verdict:
    """`verdict` for a file as it lies there."""
    name = names.parse(path)
    here = process.current()
    assert name is not None
    return verdict(
        state=name.state,
        owner=header.owner,
        here=here,
        quiet_s=time.time() - path.stat().st_mtime,
        everything=everything,
        claimer_dead=_claimer_dead(name.state, here),
    )


def claim(path: Path) -> Path | None:
    """Take the segment: exactly one of several processes gets it. Where it lies now; None when another was faster."""
    name = names.parse(path)
    assert name is not None
    return _rename(path, f"claim-{names.token(process.current())}.was_{names.origin(name.state)}")


def release(path: Path, owner: ProcessId) -> Path | None:
    """Give a claimed segment back, undelivered, as it was: `owner` is its writer's process. Where it lies then."""
    name = names.parse(path)
    assert name is not None
    before = names.origin(name.state)
    return _rename(path, names.left_state(owner) if before == names.LEFT else before)


def was_open(path: Path) -> bool:
    """Whether the writer of a claimed segment has never closed it: it was killed."""
    name = names.parse(path)
    return name is not None and names.origin(name.state) == "open"


def keep_damaged(path: Path) -> Path:
    """Put a claimed segment aside, for people; where it lies then."""
    return path.rename(names.damaged(path))


def remove(path: Path) -> None:
    """A claimed segment is delivered."""
    path.unlink(missing_ok=True)


def lower_segments(directory: Path, run_id: str, writer: int, number: int) -> bool:
    """Whether the writer has a segment before `number`, in whatever hands."""
    found = (names.parse(path) for path in find_segments(directory))
    return any(name and (name.run_id, name.writer) == (run_id, writer) and name.number < number for name in found)


def _rename(path: Path, state: str) -> Path | None:
    name = names.parse(path)
    assert name is not None
    target = path.with_name(str(names.SegmentName(name.run_id, name.writer, name.number, state)))
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return None
    return target


def _claimer_dead(state: str, here: ProcessId) -> bool | None:
    """Whether the process that claimed the segment is dead; None when this host cannot tell."""
    pid, start, boot, host, namespace = [*state.removeprefix("claim-").split("."), "", "", "", "", ""][:5]
    mine = names.token(here).split(".")
    if host != mine[3] or not pid.isdigit():
        return None
    if boot != mine[2]:
        return True
    if namespace != mine[4]:
        return None
    return names.token(process.of(int(pid))).split(".")[1] != start
