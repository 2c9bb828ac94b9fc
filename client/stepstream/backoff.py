"""How long to wait before trying again. Pure: randomness is handed in."""

from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.25
MAX_S: Final = 30.0
"""After an outage of hours every client is back within half a minute, and 512 of them ask 17 times a second."""


class Backoff:
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

    Law: the n-th wait in a row is uniform in [FIRST_S / 2, min(MAX_S, FIRST_S * 2**n)], and never below Retry-After.
    """

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many failures have followed one another."""
        return self._failures

    def failed(self, retry_after_s: float | None = None) -> float:
        """Seconds to wait after one more failure; Retry-After is spread, since everybody was told the same."""
        ceiling = min(MAX_S, FIRST_S * 2.0 ** min(self._failures, 32))
        self._failures += 1
        wait = self._uniform(FIRST_S / 2, max(ceiling, FIRST_S))
        if retry_after_s is None:
            return wait
        return max(wait, retry_after_s * self._uniform(1.0, 1.25))

    def succeeded(self) -> None:
        """The other side answered: the next failure starts from the beginning."""
        self._failures = 0
