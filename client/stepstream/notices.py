"""Says each kind of trouble once: a training log must not drown in its tracker's warnings."""

import logging
from typing import Final

LOGGER: Final = logging.getLogger("stepstream")


class Notices:
    """Law: however often a kind is said, it is logged once; the counters tell how often it happened."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def once(self, kind: str, message: str) -> None:
        """Log `message` as a warning unless its `kind` has been said."""
        if kind not in self._said:
            self._said.add(kind)
            LOGGER.warning("stepstream: %s", message)

    def over(self, kind: str, message: str) -> None:
        """Log that a trouble said before is over, so that its next occurrence is said again."""
        if kind in self._said:
            self._said.discard(kind)
            LOGGER.warning("stepstream: %s", message)
