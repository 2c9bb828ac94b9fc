"""Which chunks of a series are merged, and what comes out. Pure.

Law: merging changes neither the points of a series nor their canonical order; it ends, and what it leaves neither
overlaps nor could be had in noticeably fewer chunks.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from stepstream_schema import chunk
from stepstream_schema import points as ordered
from stepstream_schema.points import Points

MAX_CHUNKS: Final = 24
"""Opened at once: some 5 MB of points."""
SMALL_POINTS: Final = chunk.MAX_POINTS // 2
"""A chunk below this is worth merging with its neighbour."""

Place: TypeAlias = tuple[int, int]
"""(step, time in ms)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where one chunk lies."""

    chunk_id: int
    first: Place
    last: Place
    points: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Chunks that are opened together, and how far their points can be put in order for good."""

    chunks: tuple[Bounds, ...]
    before: Place | None
    """A chunk that overlaps them begins here: what lies at or beyond it stays loose. None when there is none."""


def plan(bounds: Sequence[Bounds]) -> list[Merge]:
    """What to merge, given the chunks of a series in order of their first point; empty when it is tidy.

    Chunks that are neither small, nor beside a small one, nor reach into another may be left out.
    """
    merges: list[Merge] = []
    for cluster in _clusters(bounds):
        if len(cluster) > 1:
            # A whole cluster ends before the next one begins; a part of it ends where its own rest does.
            before = cluster[MAX_CHUNKS].first if len(cluster) > MAX_CHUNKS else None
            merges.append(Merge(tuple(cluster[:MAX_CHUNKS]), before))
    return merges


def _clusters(bounds: Sequence[Bounds]) -> list[list[Bounds]]:
    """Chunks that overlap, and small ones together with the neighbours that leave room for them."""
    clusters: list[list[Bounds]] = []
    reach: Place | None = None
    for one in bounds:
        # Equal places do not overlap: a step that is logged ten thousand times at one instant must fill several chunks.
        if (reach is not None and one.first < reach) or (clusters and _join(clusters[-1], one)):
            clusters[-1].append(one)
        else:
            clusters.append([one])
        reach = one.last if reach is None else max(reach, one.last)
    return clusters


def _join(cluster: Sequence[Bounds], one: Bounds) -> bool:
    small = one.points < SMALL_POINTS or cluster[-1].points < SMALL_POINTS
    return small and sum(member.points for member in cluster) + one.points <= chunk.MAX_POINTS


def merged(parts: Sequence[Points], before: Place | None) -> tuple[list[Points], list[Points]]:
    """The points of some chunks as new ones: those that lie before the next chunk, and the rest, which stays loose."""
    whole = ordered.canonical(ordered.joined(parts))
    if before is None:
        return _split(whole), []
    step, time_ms = before
    end = int(np.searchsorted(whole.steps, step, "left"))
    end += int(np.searchsorted(whole.times_ms[end : np.searchsorted(whole.steps, step, "right")], time_ms, "left"))
    return _split(whole.take(slice(0, end))), _split(whole.take(slice(end, None)))


def _split(points: Points) -> list[Points]:
    pieces = -(-len(points) // chunk.MAX_POINTS)
    edges = np.linspace(0, len(points), pieces + 1).astype(np.intp).tolist() if pieces else [0]
    return [points.take(slice(start, end)) for start, end in itertools.pairwise(edges)]
