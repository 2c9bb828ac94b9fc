"""Clusters opened a few pieces at a time, however many overlap: what is decided goes out. Pure."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stepstream_ingest.errors import ApiError
from stepstream_ingest.read import layers as sight
from stepstream_ingest.read.layers import Cluster, Piece
from stepstream_schema import points as ordered
from stepstream_schema.points import Points

MAX_HELD_POINTS: Final = 4_000_000
"""That are not hidden yet, and lie where later pieces may decide: 100 MB. So many are only those of hundreds of ranks
or attempts that lie among one another, each at steps of its own."""


@dataclass(frozen=True, slots=True)
class Share:
    """Pieces of one cluster that are opened together."""

    place: int
    """Of the cluster, among all."""
    pieces: Sequence[Piece]
    before: tuple[int, int] | None
    """(step, time in ms): nothing that is opened after them lies before this. None: nothing is."""


def batches(clusters: Sequence[Cluster], most: int) -> Iterator[list[Share]]:
    """All pieces of all clusters, in order, in batches of at most so many."""
    batch: list[Share] = []
    size = 0
    for place, cluster in enumerate(clusters):
        for share in _shares(place, cluster, most):
            if batch and size + len(share.pieces) > most:
                yield batch
                batch, size = [], 0
            batch.append(share)
            size += len(share.pieces)
    if batch:
        yield batch


def _shares(place: int, cluster: Cluster, most: int) -> Iterator[Share]:
    if len(cluster.pieces) <= most:
        yield Share(place, cluster.pieces, None)
        return
    pieces = sorted(cluster.pieces, key=lambda piece: (piece.first, piece.level))
    # Between levels a step is decided as a whole, within one it may end in the middle.
    by_time = len({piece.level for piece in pieces}) == 1
    edges = [*range(0, len(pieces), most), len(pieces)]
    for start, end in itertools.pairwise(edges):
        before = None
        if end < len(pieces):
            step, time_ms = pieces[end].first
            before = (step, time_ms if by_time else np.iinfo(np.int64).min)
        yield Share(place, pieces[start:end], before)


class Sweep:
    """Law: what `decided` returns of the shares of a cluster, in order, is together what is seen of all its pieces."""

    def __init__(self) -> None:
        self._held: list[tuple[Piece, Points]] = []

    def decided(self, share: Share, points: Sequence[Points]) -> Points:
        """What is seen before the place where the next share begins, given the points of each piece.

        Raises ApiError 400 where too much must be held until then.
        """
        opened = [*self._held, *zip(share.pieces, points, strict=True)]
        self._held = []
        if share.before is not None:
            cuts = [_place(points, share.before) for _, points in opened]
            # What is hidden already stays hidden: of hundreds of ranks at the same steps one is held.
            self._held = _not_hidden(
                _some((piece, points.take(slice(cut, None))) for (piece, points), cut in zip(opened, cuts, strict=True))
            )
            opened = _some(
                (piece, points.take(slice(0, cut))) for (piece, points), cut in zip(opened, cuts, strict=True)
            )
            if sum(len(points) for _, points in self._held) > MAX_HELD_POINTS:
                message = (
                    f"more than {MAX_HELD_POINTS} points of many ranks or attempts lie among one another from step "
                    f"{share.before[0]} on: ask for one of them (rank, attempt), or for fewer steps (start_step, "
                    "end_step)"
                )
                raise ApiError(400, "INVALID_PARAMETER_VALUE", message)
        if len(opened) > 1:
            return sight.seen(opened)
        return opened[0][1] if opened else ordered.NONE


def _some(parts: Iterator[tuple[Piece, Points]]) -> list[tuple[Piece, Points]]:
    return [(piece, points) for piece, points in parts if len(points)]


def _not_hidden(held: list[tuple[Piece, Points]]) -> list[tuple[Piece, Points]]:
    if len({piece.level for piece, _ in held}) < 2:
        return held
    kept = sight.lowest([(piece.level, points) for piece, points in held])
    ends = list(itertools.accumulate(len(points) for _, points in held))
    return _some(
        (piece, points.take(kept[end - len(points) : end])) for (piece, points), end in zip(held, ends, strict=True)
    )


def _place(points: Points, before: tuple[int, int]) -> int:
    """How many of the points, which are in order, lie before a place."""
    step, time_ms = before
    low, high = np.searchsorted(points.steps, step, "left"), np.searchsorted(points.steps, step, "right")
    return int(low + np.searchsorted(points.times_ms[low:high], time_ms, "left"))
