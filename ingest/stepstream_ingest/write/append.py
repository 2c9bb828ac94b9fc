"""Groups of which each frame is this process's own: nobody else has its number, so there is no cursor to move."""

from collections.abc import Sequence
from typing import Final

from stepstream_ingest.database import Database, stream_copy
from stepstream_ingest.write.candidate import Candidate
from stepstream_ingest.write.commit import Outcome
from stepstream_ingest.write.copy_rows import COLUMNS

OPEN: Final = "takes_points(run_id)"
"""Asked of every row by the COPY itself: a transaction around it would cost four round trips more."""


class Appender:
    """Law: all of the group is stored, or nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def commit(self, candidates: Sequence[Candidate]) -> Outcome:
        """Store the frames. Raises RunClosed where one run is not simply open, and DatabaseAway."""
        rows = [one.row for one in candidates if one.row is not None]
        async with self._database.connection() as connection:
            await connection.copy_to_table(
                "frames", source=stream_copy(rows), columns=COLUMNS, format="binary", where=OPEN
            )
        return Outcome(verdicts=["new"] * len(candidates), marks={})
