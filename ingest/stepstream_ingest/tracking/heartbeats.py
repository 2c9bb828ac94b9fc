"""Runs that have promised to be heard, and are silent."""

from stepstream_ingest.database import Database
from stepstream_schema import sql


class Heartbeats:
    """Raises DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("tracking")

    async def fail_silent_runs(self, timeout_s: float, hearing_s: float) -> int:
        """Mark runs failed that have promised heartbeats and are not heard; how many.

        `hearing_s` is for how long everybody could be heard: what was silent before that may have had no choice.
        """
        return len(await self._database.fetch(self._sql["fail_silent_runs"], timeout_s, hearing_s))
