"""Names of segment files: `<run id>-<writer>-<number>.<state>`. Pure.

.open           its writer appends to it
.seg            full, or its writer has closed it
.claim-TOKEN    a process, named by the token, is delivering it
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATTERN: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-([0-9]{8,})\.(open|seg|claim-[0-9A-Za-z_.+-]+)")


@dataclass(frozen=True, slots=True)
class SegmentName:
    """What a file's name says."""

    run_id: str
    writer: int
    number: int
    state: str

    def __str__(self) -> str:
        return f"{self.run_id}-{self.writer:016x}-{self.number:08d}.{self.state}"


def parse(path: Path) -> SegmentName | None:
    """What the name of `path` says; None when it is no segment's."""
    match = PATTERN.fullmatch(path.name)
    return SegmentName(match[1], int(match[2], 16), int(match[3]), match[4]) if match else None
