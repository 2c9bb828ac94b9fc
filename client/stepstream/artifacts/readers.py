"""The threads that read files for those who send them."""

from types import TracebackType
from typing import Final

from stepstream.artifacts.reader import Reader

STREAMS_AT_ONCE: Final = 2
"""Fewer than the parts of streams that may be in memory: each that is read holds one."""


class Readers:
    """The threads that read: a small file does not wait until a large one is hashed, nor any file for a stream."""

    def __init__(self) -> None:
        self.small = Reader("stepstream-hash")
        self.large = Reader("stepstream-hash-large")
        self.streams: list[Reader] = []
        """Those that are free."""
        self._all = [self.small, self.large]

    def open_streams(self) -> None:
        """From now on there may be streams."""
        if len(self._all) == 2:
            self.streams += [Reader("stepstream-stream") for _ in range(STREAMS_AT_ONCE)]
            self._all += self.streams

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
