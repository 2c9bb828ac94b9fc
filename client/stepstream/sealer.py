"""The background thread that turns what was logged into frames in the spool, and knows nothing of the network."""

import threading
import time
from typing import TYPE_CHECKING, Final

from stepstream.buffer import Batch, Buffer, DeferredRow, Note, Row, is_ready
from stepstream.notices import Notices
from stepstream.reentrant import Event
from stepstream.values import Deferred

if TYPE_CHECKING:
    from stepstream.framer import Framer, Sealed
    from stepstream.outbox import Outbox

TICK_SHARE: Final = 0.6
"""Seal after this share of the promised interval: the rest is for encoding, writing and a busy machine."""
HEARTBEAT_S: Final = 10.0
"""A writer that had nothing else to say for this long says that it lives."""
POLL_S: Final = 0.005
"""How often somebody who waits for a device asks it: a wait inside its driver could not be given up."""


class Sealer:
    """Law: `seal()` returns after everything pushed before it is in the outbox, or was counted as lost, but for what is
    still on its device; within a signal handler that interrupts a seal, that seal does it before it returns.
    """

    def __init__(
        self, *, buffer: Buffer, framer: "Framer", outbox: "Outbox", interval_s: float, notices: Notices
    ) -> None:
        self._buffer = buffer
        self._framer = framer
        self._outbox = outbox
        self._tick_s = interval_s * TICK_SHARE if interval_s else HEARTBEAT_S
        self._notices = notices
        # Reentrant, since a signal handler may log while `every call` seals in this very thread.
        self._lock = threading.RLock()
        self._sealing = False
        self._again = False
        self._hand: Batch | None = None
        self._points_put = 0
        self._wake = Event()
        self._turn = threading.Condition()
        self._asked = 0
        self._served = 0
        self._stopping = False
        self._last_seq = 0
        self._spoke_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="stepstream-sealer", daemon=True)
        self.points_lost = 0
        """Of batches that could not be sealed."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Much has been logged: do not wait for the interval."""
        if not self._wake.is_set():
            self._wake.set()

    def seal(self) -> int:
        """Put everything pushed so far into the outbox; the number of the newest frame."""
        with self._lock:
            self._again = True
            # Asked again once it is done: a handler may have come in between, and have left to it what it logged.
            while self._again and not self._sealing:
                try:
                    self._sealing = True
                    self._again = False
                    self._seal(self._buffer.drain())
                finally:
                    self.points_lost += self.points_in_hand
                    self._hand = None
                    self._sealing = False
            return self._last_seq

    def flush(self, timeout_s: float) -> int | None:
        """The same, in the thread, and with what is still on its device; None when that takes longer.

        Devices and disks may hang, and nobody who has a limit may hang with them.
        """
        deadline = time.monotonic() + timeout_s
        caught_up = all(_waited(row, deadline) for row in self._buffer.deferred())
        seq = self.seal_in_thread(max(0.0, deadline - time.monotonic()))
        return seq if caught_up else None

    def seal_in_thread(self, timeout_s: float) -> int | None:
        """The same as `seal`; None when it takes longer, and once the thread has ended."""
        if not self._thread.is_alive():
            return None
        with self._turn:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            return self._last_seq if self._turn.wait_for(lambda: self._served >= mine, timeout_s) else None

    @property
    def points_in_hand(self) -> int:
        """Points that were taken from the buffer and are not in the outbox yet."""
        batch = self._hand
        if batch is None:
            return 0
        points = sum(len(row[2]) for row in batch.rows) + sum(len(row[2]) for row in batch.deferred)
        return max(0, points - self._points_put)

    @property
    def bad_values(self) -> int:
        """Values that could not be written into a frame."""
        return self._framer.bad_values

    def stop(self, timeout_s: float) -> bool:
        """End the thread after a last seal, and close the outbox; False when that takes longer."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait(self._tick_s)
            self._wake.clear()
            # Asked before the turn: what was pushed before stop() is sealed.
            stopping = self._stopping
            self._take_turn()
        # Closed by the thread that writes: whoever waits for it has a limit, and a disk has none.
        self._outbox.close()

    def _take_turn(self) -> None:
        asked = self._asked
        try:
            self.seal()
            self._heartbeat()
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one batch holds
            self._notices.once("sealer", f"a batch could not be sealed, and what was left of it is lost: {error!r}")
        with self._turn:
            self._served = asked
            self._turn.notify_all()

    def _seal(self, batch: Batch) -> None:
        self._points_put, self._hand = 0, batch
        if not batch.deferred:
            self._put_all(batch.rows, batch.notes)
        else:
            # A device may hang after all: what is not on one goes first, and a status after what it follows.
            self._put_all(batch.rows, [note for note in batch.notes if note.kind != "status"])
            resolved = [row for late in batch.deferred if (row := self._resolve(late))]
            self._put_all(resolved, [note for note in batch.notes if note.kind == "status"])
        if self._framer.bad_values:
            self._notices.once("bad value", f"a value was not logged: {self._framer.last_problem}")
        self._hand = None

    def _put_all(self, rows: list[Row], notes: list[Note]) -> None:
        if rows or notes:
            for sealed in self._framer.seal(rows, notes):
                self._put(sealed)

    def _put(self, sealed: "Sealed") -> None:
        if self._outbox.put(sealed):
            self._last_seq = sealed.seq
        self._points_put += sealed.points
        self._spoke_at = time.monotonic()

    def _heartbeat(self) -> None:
        if time.monotonic() - self._spoke_at >= HEARTBEAT_S:
            with self._lock:
                self._put(self._framer.heartbeat(time.time_ns() // 1_000_000))

    def _resolve(self, row: DeferredRow) -> Row | None:
        step, time_ns, values = row
        resolved: dict[str, float] = {}
        for key, value in values.items():
            try:
                resolved[key] = value.resolve() if isinstance(value, Deferred) else value
            except Exception as error:  # noqa: BLE001 - whatever a framework raises, the other values live
                self._framer.bad_values += 1
                self._framer.last_problem = f"{key[:40]!r} could not be read from its device: {error}"
        return (step, time_ns, resolved) if resolved else None


def _waited(row: DeferredRow, deadline: float) -> bool:
    while not is_ready(row):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True
