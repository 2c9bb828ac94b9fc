"""Which parts of an upload are still to be sent. Pure."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartRange:
    """One part of a file."""

    number: int
    start: int
    size: int


def parts(size: int, part_bytes: int) -> list[PartRange]:
    """All parts of a file, in order. Law: they are disjoint and cover it."""
    starts = range(0, size, part_bytes)
    return [PartRange(number, start, min(part_bytes, size - start)) for number, start in enumerate(starts, 1)]


def missing(size: int, part_bytes: int, have: Collection[tuple[int, int]]) -> list[PartRange]:
    """Parts that are not among the (number, size) that the store has."""
    there = set(have)
    return [part for part in parts(size, part_bytes) if (part.number, part.size) not in there]


def windows(wanted: list[PartRange], length: int) -> Iterator[list[PartRange]]:
    """Runs of at most `length` parts, each of which is signed by one request."""
    for start in range(0, len(wanted), length):
        yield wanted[start : start + length]
