"""How much of what waits is in memory."""

import threading

from stepstream.artifacts.handle import Upload


class Memory:
    """Law: what it has taken is no more than `most` bytes, or one that is larger, until it has ended.

    Safe to use from any thread.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Reentrant: a signal handler may log while this very thread holds it.
        self._lock = threading.RLock()
        self._sizes: dict[Upload, int] = {}
        self.held = 0
        """Bytes."""

    def take(self, handle: Upload, size: int, *, even_alone: bool = False) -> bool:
        """Whether there is room for one more; with `even_alone` for any where there is nothing else."""
        with self._lock:
            if self.held + size > self._most and not (even_alone and not self.held):
                return False
            self._sizes[handle] = size
            self.held += size
            return True

    def ended(self, handle: Upload) -> None:
        """It is done, if it was in memory at all."""
        with self._lock:
            self.held -= self._sizes.pop(handle, 0)
