"""What is asked about metrics."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One metric of one run."""

    run_id: UUID
    key: str
    rank: int | None = None
    """None is the lowest of each step; -1 those that have none."""
    attempt: int | None = None
    """Packed; None is the newest of each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Steps from `start` to `end`, both included; None is open."""

    start: int | None = None
    end: int | None = None
