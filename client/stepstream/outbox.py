"""Sealed frames that the server has not acknowledged: filled by the sealer, emptied by the sender."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from stepstream.delivery import Pending
from stepstream.framer import Sealed
from stepstream.notices import Notices
from stepstream.spool.ledger import Ledger
from stepstream.spool.reader import SpoolReader
from stepstream.spool.writer import Location, SpoolWriter

MEMORY_BYTES: Final = 32 * 2**20
"""Frames kept in memory when the spool refuses them: a full disk and a reachable server still lose nothing."""


class Unsettled(NamedTuple):
    """What the server has not acknowledged."""

    frames: int
    points: int
    bytes: int


class Left(NamedTuple):
    """What the server has not acknowledged when its writer ends."""

    frames: int
    """In the spool."""
    points: int
    frames_lost: int
    """Only this process had them."""
    points_lost: int


class Outbox:
    """Law: a frame that `put` took is unsettled until `settle`; a segment goes when all its frames are settled.

    Whoever asks what is unsettled, or waits for it, never waits for the disk: only `put`, `settle` and `close` do.
    """

    def __init__(self, spool: SpoolWriter, reader: SpoolReader, notices: Notices) -> None:
        self._spool = spool
        self._reader = reader
        self._notices = notices
        self._ledger = Ledger()
        self._disk = threading.RLock()
        """Of spool and ledger; a disk may keep it for long."""
        self._changed = threading.Condition()
        """Of everything else, for an instant."""
        self._closed: Left | None = None
        # In the order of sealing, so that the first is the lowest number.
        self._unsettled: dict[int, Pending] = {}
        self._arrivals: deque[Pending] = deque()
        self._memory_bytes = 0
        self._points = 0
        self._bytes = 0
        self.notify: Callable[[], None] = lambda: None
        """Called after each put, from the thread that put."""
        self.points_dropped = 0
        self.frames_dropped = 0
        """For want of room; one that holds params or tags alone has no points."""
        self.points_acknowledged = 0
        self.frames_lost = 0
        self.points_lost = 0
        """In frames that were taken, and that the spool no longer has."""
        self.frames_sealed = 0

    def put(self, sealed: Sealed) -> bool:
        """Take a frame; False when neither disk nor memory has room, and its points are lost and counted."""
        place = self._store(sealed.data)
        if place is None:
            self._say_spool_full()
        with self._changed:
            if place is None:
                if self._memory_bytes + len(sealed.data) > MEMORY_BYTES:
                    self.points_dropped += sealed.points
                    self.frames_dropped += 1
                    return False
                self._memory_bytes += len(sealed.data)
            pending = Pending(
                seq=sealed.seq,
                points=sealed.points,
                size=len(sealed.data),
                place=sealed.data if place is None else place,
            )
            self._unsettled[sealed.seq] = pending
            self._arrivals.append(pending)
            self._points += pending.points
            self._bytes += pending.size
            self.frames_sealed += 1
        self.notify()
        return True

    def arrivals(self) -> list[Pending]:
        """Frames put since the last call."""
        with self._changed:
            taken = list(self._arrivals)
            self._arrivals.clear()
        return taken

    def read(self, pending: Pending) -> bytes:
        """The frame's bytes. Raises SpoolDamaged or OSError when the spool no longer has them."""
        return pending.place if isinstance(pending.place, bytes) else self._reader.read(pending.place)

    def settle(self, frames: Iterable[Pending]) -> None:
        """These need not be sent again."""
        spooled: list[Location] = []
        with self._changed:
            for pending in frames:
                if self._unsettled.pop(pending.seq, None) is None:
                    continue
                self._points -= pending.points
                self._bytes -= pending.size
                if isinstance(pending.place, bytes):
                    self._memory_bytes -= pending.size
                else:
                    spooled.append(pending.place)
            self._changed.notify_all()
        with self._disk:
            for place in spooled:
                for number in self._ledger.acknowledged(place):
                    self._spool.remove(number)

    def lose(self, frames: Iterable[Pending]) -> None:
        """The spool has not kept these, and nobody has delivered them."""
        for pending in frames:
            self.frames_lost += 1
            self.points_lost += pending.points
            self.settle([pending])

    def wait(self, seq: int, timeout_s: float) -> bool:
        """Until every frame up to number `seq` is settled; False when that takes longer, or when a frame was lost."""
        with self._changed:
            settled = self._changed.wait_for(lambda: next(iter(self._unsettled), seq + 1) > seq, timeout_s)
            return settled and not self.frames_lost

    def lowest_seq(self) -> int | None:
        """The lowest number that is not settled."""
        with self._changed:
            return next(iter(self._unsettled), None)

    @property
    def unsettled(self) -> Unsettled:
        """What the server has not acknowledged."""
        with self._changed:
            return Unsettled(len(self._unsettled), self._points, self._bytes)

    @property
    def directory(self) -> Path:
        """Where the spool lies."""
        return self._spool.directory

    @property
    def left(self) -> Left:
        """What the server has not acknowledged, by where it is; once closed, as it was seen on the disk."""
        return self._closed or self._count_left(lambda number: True)

    def close(self) -> None:
        """Close the spool's files; what is settled is removed, the rest stays for a later delivery."""
        with self._disk:
            self._spool.close(keep=bool(self.unsettled.frames))
            self._closed = self._count_left(lru_cache(self._reader.has))

    def stop_reading(self) -> None:
        """Nothing is read any more; for the thread that has read."""
        self._reader.close()

    def _store(self, data: bytes) -> Location | None:
        with self._disk:
            place = self._spool.append(data)
            if place is not None:
                for number in self._ledger.sealed(place):
                    self._spool.remove(number)
            return place

    def _count_left(self, lies: Callable[[int], bool]) -> Left:
        with self._changed:
            unsettled = list(self._unsettled.values())
        kept = [one for one in unsettled if not isinstance(one.place, bytes) and lies(one.place.number)]
        points = sum(one.points for one in kept)
        all_points = sum(one.points for one in unsettled)
        return Left(len(kept), points, len(unsettled) - len(kept), all_points - points)

    def _say_spool_full(self) -> None:
        self._notices.once(
            "spool",
            f"the spool in {self._spool.directory} takes no more ({self._spool.last_error}); training goes on, frames "
            f"are kept in memory up to {MEMORY_BYTES >> 20} MiB, and points beyond that are dropped and counted. "
            "Free disk space or raise STEPSTREAM_SPOOL_MAX_BYTES.",
        )
