"""What one uploader was given, by how it stands."""

import threading
from typing import Final

from stepstream.artifacts.handle import Upload
from stepstream.reentrant import Event

MAX_REASONS: Final = 1000
"""Why files failed is kept of so many; of all others it is counted that they did."""


class Handles:
    """Law: to add one costs the same however many wait, and what is done is not kept but for why it failed.

    Safe to use from any thread.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may log while this very thread holds it.
        self._lock = threading.RLock()
        self._open: dict[Upload, None] = {}
        self._reasons: list[str] = []
        self._failures = 0
        self._moved = self._bytes_sent = self._bytes_total = 0
        """Of those that are done."""
        self._all_done = Event()
        self._all_done.set()

    def add(self, handle: Upload) -> None:
        """One more."""
        with self._lock:
            self._open[handle] = None
            self._all_done.clear()
            if handle.done:
                self.ended(handle)

    def ended(self, handle: Upload) -> None:
        """It is done."""
        with self._lock:
            del self._open[handle]
            self._failures += len(handle.errors)
            self._reasons += handle.errors[: MAX_REASONS - len(self._reasons)]
            self._moved += handle.moved
            self._bytes_sent += handle.bytes_sent
            self._bytes_total += handle.bytes_total
            if not self._open:
                self._all_done.set()

    def wait(self, timeout_s: float) -> bool:
        """Until all are done; whether they are."""
        return self._all_done.wait(timeout_s)

    @property
    def are_stored(self) -> bool:
        """Whether every file that was ever given is."""
        with self._lock:
            return not self._failures and all(handle.state == "stored" for handle in self._open)

    @property
    def moved(self) -> int:
        """Changes as long as something is done."""
        with self._lock:
            return self._moved + sum(handle.moved for handle in self._open)

    @property
    def bytes_sent(self) -> int:
        """Over the network, repetitions included."""
        with self._lock:
            return self._bytes_sent + sum(handle.bytes_sent for handle in self._open)

    @property
    def bytes_total(self) -> int:
        """As far as it is known."""
        with self._lock:
            return self._bytes_total + sum(handle.bytes_total for handle in self._open)

    @property
    def failures(self) -> int:
        """Files that will not be stored by this process."""
        with self._lock:
            return self._failures + sum(len(handle.errors) for handle in self._open)

    def failed(self) -> tuple[str, ...]:
        """Why files will not be stored by this process."""
        with self._lock:
            reasons = [*self._reasons, *(error for handle in self._open for error in handle.errors)]
            more = self._failures - len(self._reasons)
        return (*reasons, *([f"and {more:,} more, of which the reasons are not kept"] if more else []))
