"""What waits to be compacted, and what is due. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

DUE_POINTS: Final = 800_000
"""Worth a pass at once: 100 keys by a chunk of 8000 points each."""
DUE_AGE_S: Final = 30.0
"""However little it is: a reader opens every frame that waits."""
SOFT_BYTES: Final = 32 * 2**20
"""Above this the writers are slowed: what is compacted soon after it came is still in PostgreSQL's memory."""
SLOW_BYTES: Final = 256 * 2**20
"""From here on every request waits for a second."""
HARD_BYTES: Final = 2**30
"""Above this they are turned away, and keep their frames."""
MAX_DELAY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Frames that share their series: one rank and attempt of one run."""

    run_id: UUID
    rank: int | None
    attempt: int
    """Packed."""
    served: bool = False
    """What came by MLflow's protocol: points that are equal count once."""
    writers: Sequence[int] = ()
    frames: int = 0
    points: int = 0
    bytes: int = 0
    age_s: float = 0.0
    """Since its oldest frame was received."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """All that waits."""

    groups: Sequence[Group]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> "Backlog":
        """The backlog of these groups."""
        return cls(tuple(groups))

    @property
    def frames(self) -> int:
        """Frames that wait."""
        return sum(group.frames for group in self.groups)

    @property
    def points(self) -> int:
        """Points that wait."""
        return sum(group.points for group in self.groups)

    @property
    def bytes(self) -> int:
        """Encoded bytes that wait."""
        return sum(group.bytes for group in self.groups)

    def due(self) -> list[Group]:
        """The groups that are worth a pass, the one with the most points first."""
        worth = DUE_POINTS
        if self.bytes > SOFT_BYTES:
            # Hundreds of ranks that each wait for a full pass would together hold everybody back.
            worth = min(worth, self.points // len(self.groups))
        due = [group for group in self.groups if group.points >= worth or group.age_s >= DUE_AGE_S]
        return sorted(due, key=lambda group: -group.points)


def delay_s(waiting_bytes: int) -> float:
    """How long a writer is held back while so much waits; grows evenly between the two bounds."""
    share = (waiting_bytes - SOFT_BYTES) / (SLOW_BYTES - SOFT_BYTES)
    return MAX_DELAY_S * min(1.0, max(0.0, share))
