"""The points of one series. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.frame import Frame
from stepstream_schema.records import Matrix, Ragged


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Columns of equal length n."""

    steps: Int64s
    times_ms: Int64s
    values: Float64s
    ranks: Int64s
    """-1 where the writer has no rank."""
    attempts: Int64s
    """Packed."""

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, places: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "Points":
        """The points at these places."""
        return Points(
            steps=self.steps[places],
            times_ms=self.times_ms[places],
            values=self.values[places],
            ranks=self.ranks[places],
            attempts=self.attempts[places],
        )


NONE = Points(
    steps=np.empty(0, np.int64),
    times_ms=np.empty(0, np.int64),
    values=np.empty(0),
    ranks=np.empty(0, np.int64),
    attempts=np.empty(0, np.int64),
)


def of_key(frame: Frame, key: str) -> list[Points]:
    """The points of `key` in one frame, a part for each record that holds it."""
    parts = []
    for record in frame.records:
        if isinstance(record, Matrix | Ragged) and key in record.keys:
            place = record.keys.index(key)
            if isinstance(record, Matrix):
                chosen: slice = slice(None)
                values = record.values[place]
            else:
                start = int(record.offsets[place])
                chosen = slice(start, start + int(record.counts[place]))
                values = record.values[chosen]
            steps = record.steps[chosen]
            parts.append(
                Points(
                    steps=steps,
                    times_ms=record.times_ms[chosen],
                    # Copied, so that one key does not keep the columns of a whole frame alive.
                    values=values.copy(),
                    ranks=np.full(len(steps), -1 if frame.rank is None else frame.rank, np.int64),
                    attempts=np.full(len(steps), frame.attempt.packed, np.int64),
                )
            )
    return parts


def joined(parts: Iterable[Points]) -> Points:
    """All parts, sorted by (step, time), in the order of arrival where these are equal."""
    parts = list(parts)
    if not parts:
        return NONE
    whole = Points(
        steps=np.concatenate([part.steps for part in parts]),
        times_ms=np.concatenate([part.times_ms for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        ranks=np.concatenate([part.ranks for part in parts]),
        attempts=np.concatenate([part.attempts for part in parts]),
    )
    return whole.take(np.lexsort((whole.times_ms, whole.steps)))


def in_steps(points: Points, start: int | None, end: int | None) -> Points:
    """The points whose step lies between `start` and `end`, both included."""
    low = 0 if start is None else int(np.searchsorted(points.steps, start, "left"))
    high = len(points) if end is None else int(np.searchsorted(points.steps, end, "right"))
    return points.take(np.arange(low, max(low, high)))


def lowest_rank_newest_attempt(points: Points) -> Points:
    """For each step the points of its lowest rank's newest attempt: what a reader sees who asks for neither."""
    order = np.lexsort((points.attempts * -1, points.ranks, points.steps))
    ordered = points.take(order)
    first = (
        np.flatnonzero(np.r_[True, ordered.steps[1:] != ordered.steps[:-1]]) if len(points) else np.empty(0, np.intp)
    )
    group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(points)]))
    chosen = (ordered.ranks == ordered.ranks[first][group]) & (ordered.attempts == ordered.attempts[first][group])
    return points.take(np.sort(order[chosen]))
