"""What one request logs of a run: params, tags and points. Both APIs log so."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from stepstream_ingest.errors import RunClosed
from stepstream_ingest.tracking.runs import Runs
from stepstream_ingest.write.served import Served
from stepstream_schema.records import Metrics


class Logs:
    """Law: `log` returns when all of it is durable, and stores nothing for a run that is not there, or deleted."""

    def __init__(self, runs: Runs, served: Served) -> None:
        self._runs = runs
        self._served = served

    async def log(
        self,
        run_id: UUID,
        points: Metrics | None,
        params: Sequence[tuple[str, str]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Params and tags, checked together, then points. Raises ApiError, DatabaseAway."""
        if params or tags:
            await self._runs.log(run_id, params, tags or {})
        elif points is None:
            await self._runs.check_writable(run_id)
        if points is None:
            return
        try:
            await self._served.log(run_id, points)
        except RunClosed:
            # The commit knows that, and not why.
            await self._runs.check_writable(run_id)
            # It was restored, or made, in between.
            await self.log(run_id, points)
