"""Turns what was logged into sealed, numbered frames. Pure: no clock, no threads, no files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from struct import Struct
from typing import Any, Final

import numpy as np

from stepstream import inputs
from stepstream.buffer import Note, Row
from stepstream.keys import key_problem
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.errors import FrameError
from stepstream_schema.records import (
    RUN_STATUSES,
    Heartbeat,
    Matrix,
    Metrics,
    Params,
    Ragged,
    Record,
    Start,
    Status,
    Tags,
)

TARGET_FRAME_POINTS: Final = 50_000
"""100 keys x 500 steps: where the server's cost a frame has all but vanished; 0.35 MB of noise, far less of signal."""

MAX_MATRICES: Final = 8
"""Key sets with less than this share of a frame's points go into one ragged record: each matrix costs a zstd block."""

ITEMS_PER_RECORD: Final = 1000
CHARS_PER_RECORD: Final = 2**20
"""Params or tags in one frame, so that the frame stays far below its limit in bytes."""

KNOWN_KEY_SETS: Final = 1024
KNOWN_KEYS: Final = 65_536
"""Key sets whose names are known to be valid, and the names in all of them; beyond this they are checked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A frame that will never change: it may be in the spool, and the server may know its number."""

    seq: int
    data: bytes
    points: int


class Framer:
    """Numbers the frames of one writer.

    Law: every valid value that goes in stands in exactly one frame; numbers are 1, 2, 3, ... in the order of sealing;
    `bad_values` counts what could not be written, and `last_problem` says why.
    """

    def __init__(self, *, run_id: str, writer: int, rank: int | None, attempt: Attempt, start: Start) -> None:
        self._run_id = run_id
        self._writer = writer
        self._rank = rank
        self._attempt = attempt
        self._start: Start | None = start
        self._seq = 0
        self._known: set[tuple[str, ...]] = set()
        self._known_keys = 0
        self.bad_values = 0
        self.last_problem = ""

    def seal(self, rows: list[Row], notes: list[Note]) -> Iterator[Sealed]:
        """Frames for what was drained from the buffer; a status comes last, after what it follows."""
        statuses = [note for note in notes if note.kind == "status"]
        for record in _note_records(note for note in notes if note.kind != "status"):
            yield from self._seal_record(record)
        for chunk in _chunks(rows):
            yield from self._seal_rows(chunk)
        for note in statuses:
            # Whoever notes one knows them; of what is none all the same nobody must believe that it went well.
            status: Any = note.value if note.value in RUN_STATUSES else "FAILED"
            yield self._frame([Status(status=status, time_ms=note.time_ms)])

    def heartbeat(self, time_ms: int) -> Sealed:
        """A frame that says only that the writer lives."""
        return self._frame([Heartbeat(time_ms=time_ms)])

    def _seal_record(self, record: Record) -> Iterator[Sealed]:
        try:
            sealed = self._frame([record])
        except FrameError as error:
            items = record.items if isinstance(record, Params | Tags) else ()
            if len(items) < 2:
                self._lose(1, str(error))
                return
            middle = len(items) // 2
            for half in items[:middle], items[middle:]:
                yield from self._seal_record(replace(record, items=half))  # type: ignore[arg-type]
        else:
            yield sealed

    def _seal_rows(self, rows: list[Row]) -> Iterator[Sealed]:
        groups = self._valid(_by_keys(rows))
        if not groups:
            return
        try:
            sealed = self._frame(_metrics(groups))
        except FrameError as error:
            yield from self._seal_halves(list(chain.from_iterable(groups.values())), str(error))
        except Exception as error:  # noqa: BLE001 - whatever a number's own type raises, its neighbours live
            lost = self.bad_values
            rows = self._representable(list(chain.from_iterable(groups.values())))
            found = self.bad_values > lost
            yield from self._seal_rows(rows) if found else self._seal_halves(rows, type(error).__name__)
        else:
            yield sealed

    def _seal_halves(self, rows: list[Row], problem: str) -> Iterator[Sealed]:
        """Too much for one frame: halves, down to half the keys of one row. A value that fails alone is lost."""
        middle = len(rows) // 2
        if not middle and len(rows[0][2]) == 1:
            self._lose(1, problem)
            return
        for half in [rows[:middle], rows[middle:]] if middle else _halve_row(rows[0]):
            yield from self._seal_rows(half)

    def _lose(self, values: int, problem: str) -> None:
        self.bad_values += values
        self.last_problem = problem

    def _frame(self, body: list[Record]) -> Sealed:
        records = [self._start, *body] if self._start is not None else body
        frame = wire.Frame(
            run_id=self._run_id,
            writer=self._writer,
            seq=self._seq + 1,
            rank=self._rank,
            attempt=self._attempt,
            records=tuple(records),
        )
        data = wire.encode(frame)
        # Only now: a frame that could not be encoded must not leave a gap, nor take the start record with it.
        self._seq += 1
        self._start = None
        return Sealed(seq=self._seq, data=data, points=frame.points)

    def _representable(self, rows: list[Row]) -> list[Row]:
        kept: list[Row] = []
        for step, time_ns, values in rows:
            problem = _row_problem(step, time_ns)
            good = {} if problem else {key: value for key, value in values.items() if _fits_float(value)}
            if len(good) < len(values):
                self._lose(len(values) - len(good), problem or "a value is beyond the range of float64")
            if good:
                kept.append((step, time_ns, good))
        return kept

    def _valid(self, groups: dict[tuple[str, ...], list[Row]]) -> dict[tuple[str, ...], list[Row]]:
        if all(keys in self._known for keys in groups):
            return groups
        clean: dict[tuple[str, ...], list[Row]] = {}
        for keys, group in groups.items():
            good = keys
            if keys not in self._known:
                problems = {key: problem for key in keys if (problem := key_problem(key))}
                good = tuple(key for key in keys if key not in problems)
                for problem in problems.values():
                    self._lose(len(group), problem)
                self._remember(good)
            if good:
                kept = group if good == keys else [(s, t, {k: v[k] for k in good}) for s, t, v in group]
                clean.setdefault(good, []).extend(kept)
        return clean

    def _remember(self, keys: tuple[str, ...]) -> None:
        if len(self._known) >= KNOWN_KEY_SETS or self._known_keys + len(keys) > KNOWN_KEYS:
            self._known.clear()
            self._known_keys = 0
        self._known.add(keys)
        self._known_keys += len(keys)


def _by_keys(rows: list[Row]) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    last: list[str] = []
    group: list[Row] = groups.setdefault((), [])
    for row in rows:
        keys = [*row[2]]
        # Most rows have the keys of the row before: equal by identity, which is much faster than to hash them all.
        if keys != last:
            last, group = keys, groups.setdefault(tuple(keys), [])
        group.append(row)
    # Rows without any value say nothing.
    del groups[()]
    return groups


def _metrics(groups: dict[tuple[str, ...], list[Row]]) -> list[Record]:
    points = sum(len(keys) * len(group) for keys, group in groups.items())
    records: list[Record] = []
    apart: list[Row] = []
    for keys, group in groups.items():
        if len(keys) * len(group) * MAX_MATRICES >= points:
            records.append(_matrix(keys, group))
        else:
            apart += group
    if apart:
        records.append(_ragged(apart))
    return records


def _row_problem(step: int, time_ns: int) -> str:
    """Why no value of a row can be stored; empty when they can."""
    if not -(2**63) <= step < 2**63:
        return "a step must fit int64"
    if not -(2**63) <= time_ns < 2**63:
        return f"a timestamp is ms since the epoch, and {time_ns // 1_000_000} is none: was it in ns?"
    return ""


def _fits_float(value: float) -> bool:
    try:
        float(value)
    except Exception:  # noqa: BLE001 - a number of a user's own type may raise whatever it likes
        return False
    return True


def _chunks(rows: list[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    points = 0
    for row in rows:
        if chunk and points + len(row[2]) > TARGET_FRAME_POINTS:
            yield chunk
            chunk, points = [], 0
        chunk.append(row)
        points += len(row[2])
    if chunk:
        yield chunk


def _halve_row(row: Row) -> list[list[Row]]:
    step, time_ns, values = row
    items = list(values.items())
    middle = len(items) // 2
    return [[(step, time_ns, dict(items[:middle]))], [(step, time_ns, dict(items[middle:]))]]


def _matrix(keys: tuple[str, ...], rows: list[Row]) -> Metrics:
    # By struct, row by row, which takes two thirds of the time that np.fromiter needs for one value after the other.
    pack = Struct(f"{len(keys)}d").pack
    values = np.frombuffer(b"".join([pack(*row[2].values()) for row in rows]), np.float64)
    return Matrix(
        keys=keys,
        steps=np.fromiter((row[0] for row in rows), np.int64, len(rows)),
        times_ms=np.fromiter((row[1] for row in rows), np.int64, len(rows)) // 1_000_000,
        values=np.ascontiguousarray(values.reshape(len(rows), len(keys)).T),
    )


def _ragged(rows: list[Row]) -> Metrics:
    series: dict[str, list[tuple[int, int, float]]] = {}
    for step, time_ns, values in rows:
        for key, value in values.items():
            series.setdefault(key, []).append((step, time_ns, value))
    points = list(chain.from_iterable(series.values()))
    return Ragged(
        keys=tuple(series),
        counts=np.fromiter((len(own) for own in series.values()), np.int64, len(series)),
        steps=np.fromiter((point[0] for point in points), np.int64, len(points)),
        times_ms=np.fromiter((point[1] for point in points), np.int64, len(points)) // 1_000_000,
        values=np.fromiter((point[2] for point in points), np.float64, len(points)),
    )


def _note_records(notes: Iterable[Note]) -> Iterator[Record]:
    params: list[tuple[str, str]] = []
    tags: list[tuple[str, str | None, int]] = []
    chars = 0
    for note in notes:
        chars += len(note.key) + len(note.value or "")
        if note.kind == inputs.KIND:
            yield inputs.record(note.value or "")
        elif note.kind == "param":
            params.append((note.key, note.value or ""))
        else:
            tags.append((note.key, note.value, note.time_ms))
        if chars >= CHARS_PER_RECORD or len(params) >= ITEMS_PER_RECORD or len(tags) >= ITEMS_PER_RECORD:
            yield from _flush_notes(params, tags)
            params, tags, chars = [], [], 0
    yield from _flush_notes(params, tags)


def _flush_notes(params: list[tuple[str, str]], tags: list[tuple[str, str | None, int]]) -> Iterator[Record]:
    if params:
        yield Params(items=tuple(params))
    if tags:
        yield Tags(items=tuple(tags))
