"""What `log_artifact` gives back: a file, or the files of a directory, on their way to the store."""

import threading
from typing import Literal

from stepstream.reentrant import Event

State = Literal["waiting", "sending", "stored", "failed"]


class Upload:
    """Law: once `done`, nothing changes any more. Safe to ask from any thread."""

    def __init__(self, path: str, files: int, *, refused: tuple[str, ...] = ()) -> None:
        self.path = path
        """Where it goes in the tree of the run; '' is the whole tree."""
        self.files = files
        self.bytes_sent = 0
        """Over the network, repetitions included; files that the store held already are not sent."""
        self.bytes_total = 0
        """As far as it is known."""
        self.moved = 0
        """Grows as long as something is done for it: bytes that were read, or sent further than before, and files."""
        self.files_stored = 0
        self.rewritten = 0
        """Files that were written to after they were logged: their later state is stored."""
        self._errors = list(refused)
        self._left = files
        self._begun = False
        self._lock = threading.Lock()
        self._ended = Event()
        if not files:
            self._ended.set()

    @property
    def done(self) -> bool:
        """Every file is stored or has failed."""
        return self._ended.is_set()

    @property
    def state(self) -> State:
        """How it stands."""
        if not self.done:
            return "sending" if self._begun else "waiting"
        return "failed" if self._errors else "stored"

    @property
    def errors(self) -> tuple[str, ...]:
        """Why files will never be stored."""
        return tuple(self._errors)

    @property
    def files_left(self) -> int:
        """Files that are neither stored nor failed."""
        return self._left

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done; whether every file is stored."""
        return self._ended.wait(timeout) and not self._errors

    def began(self) -> None:
        """A file is being sent."""
        self._begun = True

    def settle(self, error: str | None = None) -> bool:
        """One file is stored, or will never be; whether it was the last."""
        with self._lock:
            if error is None:
                self.files_stored += 1
            else:
                self._errors.append(error)
            self._left -= 1
            self.moved += 1
            if self._left == 0:
                self._ended.set()
            return self._left == 0
