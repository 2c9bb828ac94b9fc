"""Which life of the job wrote a point."""

from dataclasses import dataclass
from typing import Final

MAX_COUNT: Final = 2**16 - 1
"""Each part of an attempt is stored in 16 bits, so that the whole sorts as one bigint."""


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """Ordered by (scheduler restarts, elastic restarts, resumes).

    Law: `a < b` exactly when `a.packed < b.packed`, and `Attempt.unpack(a.packed) == a`.
    """

    scheduler: int = 0
    """SLURM_RESTART_COUNT: how often the scheduler requeued the job."""
    elastic: int = 0
    """TORCHELASTIC_RESTART_COUNT: how often the launcher restarted its workers."""
    resume: int = 0
    """How often the user resumed the run by hand."""

    def __post_init__(self) -> None:
        for part in (self.scheduler, self.elastic, self.resume):
            if not 0 <= part <= MAX_COUNT:
                raise ValueError(f"a restart count must be between 0 and {MAX_COUNT}, not {part}")

    @property
    def packed(self) -> int:
        """The attempt as one non-negative 48-bit integer that sorts as the attempt does."""
        return self.scheduler << 32 | self.elastic << 16 | self.resume

    @classmethod
    def unpack(cls, packed: int) -> "Attempt":
        """The attempt behind `packed`."""
        return cls(packed >> 32 & MAX_COUNT, packed >> 16 & MAX_COUNT, packed & MAX_COUNT)
