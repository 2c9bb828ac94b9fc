"""Histories in pages: each would else cost the reading of all."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from stepstream_ingest.errors import ApiError
from stepstream_ingest.read.history import MAX_ANSWER_POINTS, History, Wanted, Window
from stepstream_ingest.read.threads import aside
from stepstream_schema.points import Points

READ_AHEAD_POINTS: Final = 500_000
"""Of a series that is longer than MAX_ANSWER_POINTS: twenty pages of MLflow's client."""
KEPT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: after so many points, of a step where one is named."""

    step: int | None = None
    skip: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Points of a series in a row."""

    begin: Place
    points: Points
    whole: bool
    """Nothing comes after them."""

    @property
    def is_by_time(self) -> bool:
        """Whether it is all of a series, and so could be sorted."""
        return self.whole and self.begin.step is None

    def holds(self, place: Place, limit: int) -> bool:
        """Whether the page of a place lies within."""
        if self.is_by_time or place.step is None:
            fits = place.step is None and self.begin.step is None
        else:
            fits = self.begin.step is None or (place.step, place.skip) >= (self.begin.step, self.begin.skip)
        return fits and (self.whole or self.index(place) + limit < len(self.points))

    def index(self, place: Place) -> int:
        """Where the point of a place is."""
        if place.step is None:
            return min(place.skip, len(self.points))
        return self._first(place.step) + place.skip - (self.begin.skip if place.step == self.begin.step else 0)

    def place(self, index: int) -> Place:
        """The place of a point; points that come later to steps before it do not move it."""
        if self.is_by_time:
            return Place(None, index)
        step = int(self.points.steps[index])
        return Place(step, index - self._first(step) + (self.begin.skip if step == self.begin.step else 0))

    def _first(self, step: int) -> int:
        return int(np.searchsorted(self.points.steps, step))


class Paging:
    """MLflow's order is by time, then step, then value: for a series that can be read, and so sorted, at once.

    One that is longer comes in the order it is stored in: by step, then time, then value. For both what was read is
    kept for a while, of one series: whoever asks from the beginning sees what is there now.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._kept: tuple[Wanted, Part, float] | None = None

    async def page(self, wanted: Wanted, place: Place, limit: int) -> tuple[Points, Place | None]:
        """At most `limit` points from a place on, 0 is all of them, and where the next page begins."""
        limit = min(limit, MAX_ANSWER_POINTS)
        part = self._known(wanted, place, limit) or await self._read(wanted, place, limit)
        if not limit and not part.whole:
            raise ApiError(
                413, "TOO_LARGE", f"{wanted.key!r} has more than {MAX_ANSWER_POINTS} points: ask for pages, max_results"
            )
        start = part.index(place)
        end = min(start + limit, len(part.points)) if limit else len(part.points)
        if end == len(part.points):
            return part.points.take(slice(start, end)), None
        self._kept = (wanted, part, time.monotonic())
        return part.points.take(slice(start, end)), part.place(end)

    async def _read(self, wanted: Wanted, place: Place, limit: int) -> Part:
        most = limit + (MAX_ANSWER_POINTS if place.step is None else READ_AHEAD_POINTS)
        skip = 0 if place.step is None else place.skip
        points, whole = await self._history.part(wanted, Window(start=place.step), skip, most)
        if whole and place.step is None:
            points = await aside(by_time, points)
        return Part(Place(place.step, skip), points, whole)

    def _known(self, wanted: Wanted, place: Place, limit: int) -> Part | None:
        if self._kept is None or time.monotonic() - self._kept[2] > KEPT_S:
            self._kept = None
            return None
        kept, part, _ = self._kept
        return part if kept == wanted and place != Place() and part.holds(place, limit) else None


def by_time(points: Points) -> Points:
    """In MLflow's order: by time, then step, then value."""
    return points.take(np.lexsort((points.values, points.steps, points.times_ms)))
