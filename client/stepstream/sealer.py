"""The background thread that turns what was logged into frames in the spool, and knows nothing of the network."""

import threading
import time
from typing import TYPE_CHECKING, Final

from stepstream.buffer import Buffer, DeferredRow, Row
from stepstream.notices import Notices
from stepstream.values import Deferred

if TYPE_CHECKING:
    from stepstream.framer import Framer, Sealed
    from stepstream.outbox import Outbox

TICK_SHARE: Final = 0.6
"""Seal after this share of the promised interval: the rest is for encoding, writing and a busy machine."""
HEARTBEAT_S: Final = 10.0
"""A writer that had nothing else to say for this long says that it lives."""


class Sealer:
    """Law: `seal()` returns after everything pushed before it is in the outbox, or was counted as lost."""

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
        self._wake = threading.Event()
        self._stopping = False
        self._last_seq = 0
        self._spoke_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="stepstream-sealer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Much has been logged: do not wait for the interval."""
        if not self._wake.is_set():
            self._wake.set()

    def seal(self, *, wait_for_device: bool = False) -> int:
        """Put everything pushed so far into the outbox; the number of the newest frame."""
        with self._lock:
            batch = self._buffer.drain(wait_for_device=wait_for_device)
            rows = batch.rows + [row for late in batch.deferred if (row := self._resolve(late))]
            if rows or batch.notes:
                for sealed in self._framer.seal(rows, batch.notes):
                    self._put(sealed)
                if self._framer.bad_values:
                    self._notices.once("bad value", f"a value was not logged: {self._framer.last_problem}")
            return self._last_seq

    @property
    def bad_values(self) -> int:
        """Values that could not be written into a frame."""
        return self._framer.bad_values

    def stop(self) -> None:
        """End the thread after what it is doing."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._tick_s)
            self._wake.clear()
            try:
                self.seal()
                self._heartbeat()
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one batch holds
                self._framer.bad_values += 1
                self._notices.once("sealer", f"a batch could not be framed and is lost: {error!r}")

    def _put(self, sealed: "Sealed") -> None:
        if self._outbox.put(sealed):
            self._last_seq = sealed.seq
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
