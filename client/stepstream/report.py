"""What a run says of itself: frozen values, counted at the moment of asking."""

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
    """Why artifacts were not stored; of what may still be sent, a note and a copy stay in the spool."""
    spool_dir: Path
    """Where the rest lies; `stepstream sync` delivers it."""
