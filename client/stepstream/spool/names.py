"""Names of segment files: `<run id>-<writer>-<number>.<state>`. Pure.

.open           its writer appends to it
.seg            full, or its writer has closed it
.claim-TOKEN    a process, named by the token, is delivering it: PID.START.BOOT.HOST.NAMESPACE.was_STATE
.claim-PID.left.BOOT.HOST.NAMESPACE.seg    its writer has ended its run, and left it to whoever comes
.damaged        delivered as far as it could be read, and kept; no longer a segment
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from stepstream.process import ProcessId

LEFT: Final = "left"
PATTERN: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-([0-9]{8,})\.(open|seg|claim-[0-9A-Za-z_.+-]+)")

NOT_IN_NAMES: Final = re.compile(r"[^0-9A-Za-z]")
"""What a part of a claim's token may not hold, since it is part of a file's name."""


@dataclass(frozen=True, slots=True)
class SegmentName:
    """What a file's name says."""

    run_id: str
    writer: int
    number: int
    state: str

    def __str__(self) -> str:
        return f"{self.run_id}-{self.writer:016x}-{self.number:08d}.{self.state}"


def token(owner: ProcessId) -> str:
    """Names the process that has claimed a segment."""
    parts = (str(owner.pid), owner.start, owner.boot_id, owner.host, owner.namespace)
    return ".".join(NOT_IN_NAMES.sub("_", part) for part in parts)


def left_state(owner: ProcessId) -> str:
    """The state of a segment that its writer, of the process `owner`, leaves behind when its run ends.

    To versions that do not know it, it is a claim of a process that is dead.
    """
    return f"claim-{token(replace(owner, start=LEFT))}.seg"


def is_left(state: str) -> bool:
    """Its writer has ended, and nobody has it."""
    return state.startswith("claim-") and state.split(".")[1:2] == [LEFT]


def is_claimed(path: Path) -> bool:
    """A process is delivering it, or was when it died."""
    name = parse(path)
    return name is not None and name.state.startswith("claim-") and not is_left(name.state)


def origin(state: str) -> str:
    """What the state was before somebody claimed it: open, seg or left."""
    if is_left(state):
        return LEFT
    before = state.rpartition(".was_")[2] if state.startswith("claim-") else state
    return before if before in ("open", LEFT) else "seg"


def damaged(path: Path) -> Path:
    """Where a segment is kept whose end cannot be read; no segment has such a name."""
    return path.with_name(f"{path.name.partition('.')[0]}.damaged")


def parse(path: Path) -> SegmentName | None:
    """What the name of `path` says; None when it is no segment's."""
    match = PATTERN.fullmatch(path.name)
    return SegmentName(match[1], int(match[2], 16), int(match[3]), match[4]) if match else None
