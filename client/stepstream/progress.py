"""A bar in a terminal; nothing anywhere else."""

import sys
import time
from typing import Final, TextIO

WIDTH: Final = 30
EVERY_S: Final = 0.1


class Bar:
    """How much of something long is done."""

    def __init__(self, what: str, *, scale: int = 1, stream: TextIO | None = None) -> None:
        self._what = what
        self._scale = scale
        self._stream = stream or sys.stderr
        self._quiet = not self._stream.isatty()
        self._shown_at = 0.0
        self._shown = False

    def show(self, done: int, total: int | None, *, last: bool = False) -> None:
        """Draw it, at most ten times a second; without a total nobody knows how much there is, and it only counts."""
        now = time.monotonic()
        if self._quiet or (now - self._shown_at < EVERY_S and not last):
            return
        self._shown_at, self._shown = now, True
        said = f"{done // self._scale:,} {self._what}"
        if total is not None:
            filled = WIDTH * done // max(1, total)
            bar = "#" * filled + "-" * (WIDTH - filled)
            said = f"[{bar}] {done // self._scale:,} of {total // self._scale:,} {self._what}"
        print(f"\r  {said}", end="", file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the line."""
        if self._shown:
            print(file=self._stream, flush=True)
            self._shown = False
