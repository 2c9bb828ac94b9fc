"""What a run says of itself: frozen values, counted at the moment of asking."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """What was logged and is not yet durable on the server."""

    points_buffered: int
    """In memory, not yet in the spool."""
    frames_unacknowledged: int
    """In the spool, not yet acknowledged."""
    points_unacknowledged: int
    bytes_spooled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What has happened to the points of this writer, counted."""

    points_acknowledged: int
    points_dropped: int
    """Lost: the buffer or the spool was full, the run had ended, or a device had not caught up when it did."""
    points_refused: int
    """Lost: the server will not take them, or the spool was damaged or removed."""
    bad_values: int
    """Never logged: not a number, or a key that cannot be stored."""
    param_conflicts: int
    frames_sealed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishReport:
    """How finish() ended."""

    delivered: bool
    """Everything logged is durable on the server."""
    frames_left: int
    """In the spool, without an answer of the server."""
    points_left: int
    """In these frames."""
    points_lost: int
    """For which the buffer or the spool had no room, that were only in memory when the run ended, or that the spool no
    longer has."""
    artifacts_left: tuple[str, ...]
    """Paths of artifacts that are not stored yet; they are noted in the spool."""
    artifacts_failed: tuple[str, ...]
    """Why artifacts were not stored; of what may still be sent, a note and a copy stay in the spool. Of very many, it
    ends with how many more there are."""
    artifacts_failed_count: int
    """How many were not stored."""
    spool_dir: Path
    """Where the rest lies; `stepstream sync` delivers it."""

    def what_is_left(self) -> str:
        """For people: of a run that is not delivered whole."""
        said = []
        if self.frames_left or self.artifacts_left:
            said.append(
                f"with {self.points_left} points{_and_files(self.artifacts_left)} not yet on the server; they lie in "
                f"{self.spool_dir}. Deliver them with: stepstream sync {self.spool_dir}"
            )
        if self.points_lost:
            said.append(f"and {self.points_lost} points are lost, which neither the server nor the spool has")
        if failed := self.artifacts_failed:
            shown = "; ".join(failed[:5]) + ("; ..." if len(failed) > 5 else "")
            said.append(f"and {self.artifacts_failed_count:,} artifacts were not stored: {shown}")
        return "; ".join(said) or "and not all it had to say is stored; what is not was said before"


def _and_files(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    return f" and {len(paths)} artifacts ({', '.join(paths[:5])}{', ...' if len(paths) > 5 else ''})"
