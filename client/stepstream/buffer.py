"""What log() touches: a bounded list of rows that the sealer empties."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from stepstream.values import Deferred

ROW_BYTES: Final = 400
"""What a row costs beside its values: the tuple, the dict, the time. Measured with tracemalloc, rounded up."""
VALUE_BYTES: Final = 80
"""What a value costs in a row: its slot in the dict and the float."""
MAX_DEFERRED_VALUES: Final = 131_072
"""Device scalars that wait for their stream: they hold device memory, mostly 512 bytes each, so they have a budget of
their own. A row that finds none waiting is always taken."""

NOTE_RESERVE_BYTES: Final = 64 * 2**10
"""Beyond the bound, for params and tags: points that fill the buffer must not keep them out."""
STATUS_RESERVE_BYTES: Final = 4 * 2**10
"""Beyond that, for the few statuses of a run: one that has ended must be able to say so."""

MIN_FAST_ROWS: Final = 64
"""A row of which fewer would fit below the wake-up mark is not worth the fast way: copying it takes longer."""

Row: TypeAlias = tuple[int, int, dict[str, float]]
"""(step, time in ns since the epoch, values)"""
DeferredRow: TypeAlias = tuple[int, int, dict[str, "float | Deferred"]]


class Note(NamedTuple):
    """What is said beside metrics: a param, a tag or a status."""

    kind: str
    key: str
    value: str | None
    time_ms: int


class Batch(NamedTuple):
    """All that was pushed since the last drain."""

    rows: list[Row]
    deferred: list[DeferredRow]
    notes: list[Note]


class Buffer:
    """Bounded in bytes; `push` returns False instead of growing, and never waits for anything slower than a drain.

    Law: what was pushed and returned True is in exactly one Batch, in order. The bound is exact for one thread; threads
    that push at the same instant may each exceed it by one row, since rows are counted without a lock: appending to a
    list is atomic, and a lock would cost as much as all the rest of a call. Notes have a small reserve beyond it.

    `Run.log` may append a plain row to `rows` itself while there are fewer than `fast_rows` and it holds no more than
    `fast_values` values. What can come in that way is set aside from the bound as a whole, so that nobody has to add
    it up.
    """

    __slots__ = (
        "_calls",
        "_closed",
        "_deferred",
        "_deferred_values",
        "_fast_allowed",
        "_last_note_ms",
        "_lock",
        "_max_bytes",
        "_notes",
        "_used",
        "_wake",
        "_wake_bytes",
        "fast_rows",
        "fast_values",
        "rows",
    )

    def __init__(self, max_bytes: int, wake_bytes: int, wake: Callable[[], None]) -> None:
        self._max_bytes = max_bytes - wake_bytes
        self._wake_bytes = wake_bytes
        self._wake = wake
        # Of the slow ways in. Reentrant: a signal handler or a destructor may log while this very thread holds it.
        self._lock = threading.RLock()
        self._calls = itertools.count()
        self._used = 0
        self._closed = False
        self._deferred_values = 0
        self._deferred: list[DeferredRow] = []
        self._notes: list[Note] = []
        self._last_note_ms: dict[str, int] = {}
        self._fast_allowed = False
        self.rows: list[Row] = []
        """The rows, oldest first."""
        self.fast_rows = 0
        """0 sends every call the slow way."""
        self.fast_values = 0
        """So wide rows were seen; 0 also says that none may be added up to learn its types."""

    def allow_fast(self) -> None:
        """From now on plain rows as wide as those that were seen may be appended directly."""
        self._fast_allowed = True

    def deny_fast(self) -> None:
        """Every row comes by `push` from now on, and its types are asked one by one."""
        self._fast_allowed = False
        self.fast_rows = self.fast_values = 0

    @property
    def points(self) -> int:
        """Points that are in the buffer now."""
        with self._lock:
            deferred = sum(len(row[2]) for row in self._deferred)
        # Copied in one step of the interpreter: another thread may append while this one counts.
        return deferred + sum(len(row[2]) for row in list(self.rows))

    def push(self, values: dict[str, float], step: int | None, at_ns: int | None = None) -> bool:
        """Take one row, of now or of `at_ns`; the caller gives `values` away. Without a step, calls are counted."""
        size = ROW_BYTES + VALUE_BYTES * len(values)
        if self._used + size > self._max_bytes:
            return False
        if step is None:
            step = next(self._calls)
        self.rows.append((step, time.time_ns() if at_ns is None else at_ns, values))
        self._used += size
        if self._used > self._wake_bytes or len(self.rows) > self.fast_rows > 0:
            self._wake()
        if len(values) > self.fast_values and self._fast_allowed:
            self._widen(len(values), size)
        return True

    def push_deferred(self, values: "dict[str, float | Deferred]", step: int | None, at_ns: int | None = None) -> bool:
        """Take one row in which some values are still on a device."""
        size = ROW_BYTES + VALUE_BYTES * len(values)
        waiting = sum(isinstance(value, Deferred) for value in values.values())
        with self._lock:
            before, after = self._deferred_values, self._deferred_values + waiting
            if self._used + size > self._max_bytes or (before and after > MAX_DEFERRED_VALUES):
                return False
            if step is None:
                step = next(self._calls)
            self._used += size
            self._deferred_values += waiting
            self._deferred.append((step, time.time_ns() if at_ns is None else at_ns, values))
        # Once, and not for each row: those whose device is late stay, and the sealer would spin.
        if before < MAX_DEFERRED_VALUES // 4 <= after:
            self._wake()
        return True

    def push_note(self, note: Note) -> bool:
        """Take one param, tag or status."""
        size = ROW_BYTES + len(note.key) + len(note.value or "")
        reserve = NOTE_RESERVE_BYTES + (STATUS_RESERVE_BYTES if note.kind == "status" else 0)
        with self._lock:
            if self._closed or self._used + size > self._max_bytes + reserve:
                return False
            self._used += size
            # The last one stays, by its time: a clock that was set back must not make it the first.
            # Each kind by itself: a tag of the wrong hour is no reason for a run to end in it.
            self._last_note_ms[note.kind] = max(self._last_note_ms.get(note.kind, 0), note.time_ms)
            self._notes.append(note._replace(time_ms=self._last_note_ms[note.kind]))
        return True

    def drain(self) -> Batch:
        """Everything pushed so far; rows whose device has not caught up stay."""
        with self._lock:
            # Not by a swap: `Run.log` may have the list in its hand already, and append to it a moment later.
            rows = self.rows[:]
            del self.rows[: len(rows)]
            deferred, self._deferred = self._deferred, []
            notes, self._notes = self._notes, []
            self._used = 0
            self._deferred_values = 0
        if deferred:
            # Asked once a row: a device that catches up in between must not bring a row out twice, or never.
            ready = [is_ready(row) for row in deferred]
            self._put_back([row for row, now in zip(deferred, ready, strict=True) if not now])
            deferred = [row for row, now in zip(deferred, ready, strict=True) if now]
        return Batch(rows, deferred, notes)

    def deferred(self) -> list[DeferredRow]:
        """Rows of which some values were on a device when they were last looked at."""
        with self._lock:
            return list(self._deferred)

    def give_up_late(self) -> int:
        """Forget the values whose device has not caught up, and keep those beside them; how many were forgotten."""
        with self._lock:
            deferred, self._deferred = self._deferred, []
        kept = [
            (step, at_ns, {key: value for key, value in values.items() if _has(value)})
            for step, at_ns, values in deferred
        ]
        with self._lock:
            self._deferred = [row for row in kept if row[2]] + self._deferred
        return sum(len(row[2]) for row in deferred) - sum(len(row[2]) for row in kept)

    def close(self) -> None:
        """Refuse everything from now on."""
        with self._lock:
            self._closed = True
            self._max_bytes = 0
            self.deny_fast()

    def _widen(self, values: int, size: int) -> None:
        # A very wide row stays on the slow way: for its sake narrow ones would have to be counted as just as wide.
        if size <= self._wake_bytes // MIN_FAST_ROWS:
            # In this order: between the two, a row may be refused the fast way but none exceeds the bound.
            self.fast_rows = self._wake_bytes // size
            self.fast_values = values

    def _put_back(self, late: list[DeferredRow]) -> None:
        with self._lock:
            self._deferred = late + self._deferred
            for _, _, values in late:
                self._used += ROW_BYTES + VALUE_BYTES * len(values)
                self._deferred_values += sum(isinstance(value, Deferred) for value in values.values())


def is_ready(row: DeferredRow) -> bool:
    """Whether nothing of it is on a device that has not caught up."""
    return all(map(_has, row[2].values()))


def _has(value: "float | Deferred") -> bool:
    return not isinstance(value, Deferred) or value.ready()
