"""Frames of one group, turned into series. Pure."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stepstream_schema import points as ordered
from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.frame import Frame
from stepstream_schema.points import Points
from stepstream_schema.records import Matrix, Ragged


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """k series that share their n steps and times, in canonical order."""

    keys: tuple[str, ...]
    steps: Int64s
    times_ms: Int64s
    values: Float64s
    """Shape (k, n)."""


@dataclass(slots=True)
class Gathering:
    """Collects frames.

    Law: `blocks` hold every point of every frame that was added, once, and each key in one block.
    """

    once: bool = False
    """Points that are equal count once."""
    _matrices: dict[tuple[str, ...], list[Matrix]] = field(default_factory=dict)
    _raggeds: dict[tuple[str, ...], list[Ragged]] = field(default_factory=dict)
    _parts: dict[str, list[Points]] = field(default_factory=dict)

    def add(self, frame: Frame) -> None:
        """Take the metrics of one frame."""
        for record in frame.records:
            if isinstance(record, Matrix):
                self._matrices.setdefault(record.keys, []).append(record)
            elif isinstance(record, Ragged):
                self._raggeds.setdefault(record.keys, []).append(record)

    def blocks(self) -> list[Block]:
        """The series, in as few blocks as they share steps and times."""
        for keys, raggeds in self._raggeds.items():
            for key, part in zip(keys, _by_key(len(keys), raggeds), strict=True):
                self._parts.setdefault(key, []).append(part)
        self._raggeds.clear()
        shared = self._keys_in_several_places()
        blocks: list[Block] = []
        for keys, matrices in self._matrices.items():
            block = None if shared.intersection(keys) else _in_order(_concatenated(keys, matrices))
            if block is not None:
                blocks.append(block)
            else:
                self._split(keys, matrices)
        return blocks + regrouped((key, _whole(pieces, once=self.once)) for key, pieces in self._parts.items())

    def _keys_in_several_places(self) -> set[str]:
        seen = Counter(key for keys in self._matrices for key in keys)
        return {key for key, times in seen.items() if times > 1} | (self._parts.keys() & seen.keys())

    def _split(self, keys: tuple[str, ...], matrices: list[Matrix]) -> None:
        for matrix in matrices:
            for key, values in zip(keys, matrix.values, strict=True):
                part = Points(steps=matrix.steps, times_ms=matrix.times_ms, values=values)
                self._parts.setdefault(key, []).append(part)


def _by_key(keys: int, raggeds: list[Ragged]) -> Iterator[Points]:
    """The points of each key, in the order in which the records were added.

    All records at once: key by key and record by record, a thousand small batches would be cut into a hundred thousand
    pieces.
    """
    # Of 16 bits, a stable sort is by radix: it takes no longer than a copy.
    of_keys = np.arange(keys, dtype=np.uint16 if keys <= np.iinfo(np.uint16).max else np.int64)
    counts = np.array([record.counts for record in raggeds])
    owners = np.repeat(np.tile(of_keys, len(raggeds)), counts.ravel())
    order = np.argsort(owners, kind="stable")
    steps = np.concatenate([record.steps for record in raggeds])[order]
    times = np.concatenate([record.times_ms for record in raggeds])[order]
    values = np.concatenate([record.values for record in raggeds])[order]
    ends = np.cumsum(counts.sum(axis=0)).tolist()
    for start, end in itertools.pairwise([0, *ends]):
        yield Points(steps=steps[start:end], times_ms=times[start:end], values=values[start:end])


def _concatenated(keys: tuple[str, ...], matrices: list[Matrix]) -> Block:
    return Block(
        keys=keys,
        steps=np.concatenate([matrix.steps for matrix in matrices]),
        times_ms=np.concatenate([matrix.times_ms for matrix in matrices]),
        values=np.concatenate([matrix.values for matrix in matrices], axis=1),
    )


def _in_order(block: Block) -> Block | None:
    """The block in canonical order; None where values must decide it, since they may do so differently by key."""
    if ordered.is_strictly_ordered(block.steps, block.times_ms):
        return block
    order = np.lexsort((block.times_ms, block.steps))
    steps, times = block.steps[order], block.times_ms[order]
    if not ordered.is_strictly_ordered(steps, times):
        return None
    return Block(keys=block.keys, steps=steps, times_ms=times, values=block.values[:, order])


def _whole(pieces: list[Points], *, once: bool) -> Points:
    points = ordered.canonical(ordered.joined(pieces))
    return ordered.distinct(points) if once else points


def regrouped(series: Iterable[tuple[str, Points]]) -> list[Block]:
    """Series in as few blocks as they share steps and times."""
    groups: dict[tuple[bytes, bytes], list[tuple[str, Points]]] = {}
    for key, points in series:
        groups.setdefault((points.steps.tobytes(), points.times_ms.tobytes()), []).append((key, points))
    return [block_of(members) for members in groups.values()]


def block_of(members: Iterable[tuple[str, Points]]) -> Block:
    """One block of series that share steps and times."""
    members = list(members)
    return Block(
        keys=tuple(key for key, _ in members),
        steps=members[0][1].steps,
        times_ms=members[0][1].times_ms,
        values=np.stack([points.values for _, points in members]),
    )
