"""Gives up runs that have promised to be heard and are silent."""

import logging
import time
from typing import Final

from stepstream_ingest import telemetry
from stepstream_ingest.errors import DatabaseAway
from stepstream_ingest.hearing import Hearing
from stepstream_ingest.tracking.heartbeats import Heartbeats

LOGGER: Final = logging.getLogger(__name__)
SHARE: Final = 6
"""Silent runs are looked for this many times within the time after which they are given up."""
LATE_S: Final = 5.0
"""An event loop that wakes so much later than it wanted to has heard nobody meanwhile."""
CLIENT_PAUSE_S: Final = 30.0
"""The longest pause of a client between two tries: after an outage it may only come back then."""


class Reaper:
    """Every worker has one: what it does is one idempotent statement, and no worker is special."""

    def __init__(self, heartbeats: Heartbeats, hearing: Hearing, timeout_s: float) -> None:
        self._heartbeats, self._hearing, self._timeout_s = heartbeats, hearing, timeout_s
        self.pause_s = timeout_s / SHARE
        self._looked_at = time.time()

    async def look(self) -> None:
        """Give up who could have been heard and was not. Raises DatabaseAway, and whatever else PostgreSQL has."""
        now = time.time()
        if now - self._looked_at > 2 * self.pause_s + LATE_S:
            self._hearing.interrupted()  # the machine slept, or this process was stopped
        self._looked_at = now
        heard_s = self._hearing.lasts_s() - min(self._timeout_s, CLIENT_PAUSE_S)
        try:
            lost = await self._heartbeats.fail_silent_runs(self._timeout_s, heard_s)
        except DatabaseAway:
            self._hearing.interrupted()
            raise
        if lost:
            telemetry.RUNS_LOST.inc(lost)
            LOGGER.warning("%d runs fell silent and are marked failed; their next frame revives them", lost)
