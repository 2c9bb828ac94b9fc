"""What of a metric's series is seen: at each step the lowest rank's newest attempt. Pure.

A metric has a layer for each (rank, attempt), and another one for what came to it by MLflow's protocol: those two are
one level, and neither hides the other. Most chunks lie alone at their steps and are seen as a whole; where layers or
chunks overlap, all of them are opened and decided step by step.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from stepstream_schema import points as ordered
from stepstream_schema.buckets import Buckets
from stepstream_schema.points import Points

NO_RANK: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """A chunk as its row describes it."""

    series_id: int
    chunk_id: int
    stride: int
    """Distance of its steps where it is one and the same, else 0."""
    summary_only: bool
    """Its points are gone with age."""
    summary: Buckets
    """One bucket."""

    @property
    def first_step(self) -> int:
        """Its first step."""
        return int(self.summary.ints[0, 0])

    @property
    def last_step(self) -> int:
        """Its last step."""
        return int(self.summary.ints[2, 0])

    @property
    def points(self) -> int:
        """How many points it holds."""
        return int(self.summary.ints[8, 0])


@dataclass(slots=True, kw_only=True, eq=False)
class Layer:
    """One (rank, attempt) of a metric: its chunks in order, and the points that are not compacted yet."""

    rank: int
    """-1 where the writer has no rank."""
    attempt: int
    """Packed."""
    served: bool = False
    """What came by MLflow's protocol: points that are equal count once."""
    chunks: list[Chunk] = field(default_factory=list)
    loose: Points = ordered.NONE
    """In canonical order."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Something of one layer that is decided as a whole: a chunk, or loose points between two chunks."""

    level: int
    """0 is seen first."""
    first: tuple[int, int]
    """(step, time in ms)"""
    last: tuple[int, int]
    chunk: Chunk | None
    loose: Points | None
    served: bool
    """Points that are equal count once: pieces that meet at one place are decided together."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pieces that overlap; a lone one is seen as it is."""

    pieces: tuple[Piece, ...]

    @property
    def lone_chunk(self) -> Chunk | None:
        """The chunk that lies alone at its steps."""
        return self.pieces[0].chunk if len(self.pieces) == 1 else None

    @property
    def chunks(self) -> list[Chunk]:
        """The chunks in it."""
        return [piece.chunk for piece in self.pieces if piece.chunk is not None]


def in_order_of_sight(layers: Iterable[Layer]) -> list[Layer]:
    """The lowest rank first, of one rank the newest attempt first."""
    return sorted(layers, key=lambda layer: (layer.rank, -layer.attempt, layer.served))


def clusters(layers: Sequence[Layer]) -> list[Cluster]:
    """What is seen of the layers, given in order of sight, by rising step."""
    found: list[_Growing] = []
    for piece in sorted(_pieces(layers), key=lambda piece: (piece.first, piece.level)):
        if found and found[-1].touches(piece):
            found[-1].take(piece)
            # Two chunks of one level may share a step and lie apart, until another level has something there.
            while len(found) > 1 and found[-2].shares_a_step_with(found[-1]):
                found[-2].take(*found.pop().pieces)
        else:
            found.append(_Growing(piece))
    return [Cluster(tuple(one.pieces)) for one in found]


class _Growing:
    """A cluster to which pieces are added by rising first place."""

    def __init__(self, piece: Piece) -> None:
        self.pieces = [piece]
        self._reach = piece.last
        self._levels = {piece.level}
        self._served = piece.served

    def touches(self, piece: Piece) -> bool:
        if piece.first[0] != self._reach[0]:
            return piece.first[0] < self._reach[0]
        # Within one level a step may go on in the next chunk; between levels a step is decided for one of them.
        if self._levels != {piece.level}:
            return True
        # Where equal points count once, or other points lie at the place, too, it is decided as a whole.
        return piece.first <= self._reach if piece.served or self._served else piece.first < self._reach

    def take(self, *pieces: Piece) -> None:
        self.pieces += pieces
        for piece in pieces:
            self._reach = max(self._reach, piece.last)
            self._levels.add(piece.level)
            self._served = self._served or piece.served

    def shares_a_step_with(self, later: "_Growing") -> bool:
        return self._reach[0] == later.pieces[0].first[0] and len(self._levels | later._levels) > 1


def _pieces(layers: Sequence[Layer]) -> list[Piece]:
    pieces: list[Piece] = []
    covers: list[_Covers] = []
    edges = np.unique(np.array([chunk.first_step for layer in layers for chunk in layer.chunks], np.int64))
    for level, (_, together) in enumerate(itertools.groupby(layers, key=lambda layer: (layer.rank, layer.attempt))):
        own = list(together)
        for layer in own:
            for chunk in layer.chunks:
                if not any(cover.hide(chunk) for cover in covers):
                    ints = chunk.summary.ints
                    first, last = (int(ints[0, 0]), int(ints[1, 0])), (int(ints[2, 0]), int(ints[3, 0]))
                    pieces.append(Piece(level, first, last, chunk, None, layer.served))
            pieces += _loose_pieces(level, layer, edges)
        covers += [_Covers(layer.chunks) for layer in own]
    return pieces


def _loose_pieces(level: int, layer: Layer, edges: npt.NDArray[np.int64]) -> list[Piece]:
    """Cut where chunks begin, so that late points open only the chunks they fall into."""
    loose = layer.loose
    if not len(loose):
        return []
    cuts = np.unique(np.concatenate([[0], np.searchsorted(loose.steps, edges), [len(loose)]])).tolist()
    pieces = []
    for start, end in itertools.pairwise(cuts):
        part = loose.take(slice(start, end))
        first = (int(part.steps[0]), int(part.times_ms[0]))
        pieces.append(Piece(level, first, (int(part.steps[-1]), int(part.times_ms[-1])), None, part, layer.served))
    return pieces


@dataclass(frozen=True, slots=True)
class _Cover:
    """Steps that a layer is known to have, every `stride` from `first` to `last`."""

    first: int
    last: int
    stride: int

    def hides(self, chunk: Chunk) -> bool:
        """Whether every step of the chunk is among them."""
        if not chunk.stride or chunk.first_step < self.first or chunk.last_step > self.last:
            return False
        regular = chunk.points == 1 or chunk.stride % self.stride == 0
        return regular and (chunk.first_step - self.first) % self.stride == 0


class _Covers:
    """The steps that a layer is known to have by its chunks, which are in order."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._covers: list[_Cover] = []
        for chunk in chunks:
            if not chunk.stride:
                continue
            last = self._covers[-1] if self._covers else None
            if last is not None and last.stride == chunk.stride and last.last + last.stride == chunk.first_step:
                self._covers[-1] = _Cover(last.first, chunk.last_step, last.stride)
            else:
                self._covers.append(_Cover(chunk.first_step, chunk.last_step, chunk.stride))
        self._firsts = [cover.first for cover in self._covers]

    def hide(self, chunk: Chunk) -> bool:
        """Whether one cover is known to have every step of the chunk: the last that begins before it."""
        place = bisect_right(self._firsts, chunk.first_step) - 1
        return place >= 0 and self._covers[place].hides(chunk)


def seen(pieces: Sequence[tuple[Piece, Points]]) -> Points:
    """The points of overlapping pieces: at each step those of the first level that has it."""
    parts = [(piece.level, points) for piece, points in pieces if not piece.served]
    served: dict[int, list[Points]] = {}
    for piece, points in pieces:
        if piece.served:
            served.setdefault(piece.level, []).append(points)
    for number, own in served.items():
        parts.append((number, ordered.distinct(ordered.canonical(ordered.joined(own)))))
    whole = ordered.joined([points for _, points in parts])
    if len({number for number, _ in parts}) > 1:
        whole = whole.take(lowest(parts))
    return ordered.canonical(whole)


def lowest(parts: Sequence[tuple[int, Points]]) -> npt.NDArray[np.bool_]:
    """Of each point, the parts one after the other, whether no part of a lower level has its step."""
    level = np.concatenate([np.full(len(points), number) for number, points in parts])
    steps, place = np.unique(np.concatenate([points.steps for _, points in parts]), return_inverse=True)
    best = np.full(len(steps), np.iinfo(np.int64).max)
    np.minimum.at(best, place, level)
    lowest_here: npt.NDArray[np.bool_] = level == best[place]
    return lowest_here
