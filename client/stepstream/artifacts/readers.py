"""The threads that read files for those who send them."""

from types import TracebackType
from typing import Final

from stepstream.artifacts.reader import Reader

STREAMS_AT_ONCE: Final = 2
"""Fewer than the parts of streams that may be in memory: each that is read holds one."""


class Readers:
    """The threads that read: a small file does not wait until a large one is hashed, nor any file for a stream."""

    def __init__(self) -> None:
        """Raises RuntimeError where the system gives no threads."""
        self._all = _started("stepstream-hash", "stepstream-hash-large")
        self.small, self.large = self._all
        self.streams: list[Reader] = []
        """Those that are free."""

    def open_streams(self) -> None:
        """From now on there may be streams. Raises RuntimeError where the system gives no threads."""
        if len(self._all) == 2:
            more = _started(*["stepstream-stream"] * STREAMS_AT_ONCE)
            self.streams += more
            self._all += more

    def __enter__(self) -> "Readers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End them."""
        for reader in self._all:
            reader.stop()


def _started(*names: str) -> list[Reader]:
    """All, or none. Raises RuntimeError."""
    started: list[Reader] = []
    try:
        for name in names:
            started.append(Reader(name))  # noqa: PERF401 - those before one that fails are to be stopped
    except RuntimeError:
        for reader in started:
            reader.stop()
        raise
    return started
