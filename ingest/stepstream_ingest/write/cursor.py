"""Which of a writer's numbers are consumed. Pure."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from stepstream_schema import limits

Verdict: TypeAlias = Literal["new", "duplicate", "ahead"]


@dataclass(slots=True)
class Cursor:
    """A contiguous mark, and a bitmap of what lies beyond it: requests overtake one another.

    Law: each number is `new` once, in whatever order numbers come; `ahead` consumes nothing.
    """

    mark: int = 0
    """Every number up to it is consumed."""
    beyond: int = 0
    """Bit i is set when mark + 1 + i is consumed; bit 0 never is."""

    def consume(self, seq: int) -> Verdict:
        """Whether `seq` comes for the first time; it counts as consumed from now on unless it is too far ahead."""
        place = seq - self.mark - 1
        if place < 0:
            return "duplicate"
        if place >= limits.CURSOR_WINDOW_FRAMES:
            return "ahead"
        if self.beyond >> place & 1:
            return "duplicate"
        self.beyond |= 1 << place
        if place == 0:
            run = _trailing_ones(self.beyond)
            self.mark += run
            self.beyond >>= run
        return "new"

    def to_bytes(self) -> bytes:
        """The bitmap as it is stored: little-endian, without trailing zero bytes."""
        return self.beyond.to_bytes((self.beyond.bit_length() + 7) // 8, "little")

    @classmethod
    def from_row(cls, mark: int, beyond: bytes) -> "Cursor":
        """The cursor behind a stored row."""
        return cls(mark, int.from_bytes(beyond, "little"))


def _trailing_ones(bits: int) -> int:
    return ((bits + 1) & ~bits).bit_length() - 1
