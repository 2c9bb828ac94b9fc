"""A handle that is copied, or sent to another process: never a second run, nor a second end of one."""

import os
import sys
from typing import TYPE_CHECKING, Any

from stepstream import active, run_info, settings

if TYPE_CHECKING:
    from stepstream.run import Run
    from stepstream.settings import Settings
    from stepstream_schema.attempt import Attempt


class Joinable:
    """A copy is the handle itself. Pickled, it is a writer of its own where it is read, as in a forked child.

    It goes by the run's id, to the same server and spool; what it was not told, such as a token, is what the
    environment says there. In the process that has the run open it is that handle. Its finish() only flushes.
    """

    def __copy__(self) -> "Joinable":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Joinable":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        run: Any = self
        said = (run.run_id, run.name, run.rank, run.attempt, run.status, run._start_time_ms)
        return join, (*said, _told(run._settings))


def join(
    run_id: str,
    name: str,
    rank: int | None,
    attempt: "Attempt",
    status: str,
    start_time_ms: int,
    told: dict[str, Any],
) -> "Run":
    """The open handle of that id, or one that joins it. Raises ConfigurationError where settings cannot be meant."""
    found = active.by_id(run_id)
    if found is not None:
        return found
    from stepstream.run import Run

    run = Run(
        run_id=run_id,
        run_name=name,
        rank=rank,
        attempt=attempt,
        settings=settings.load(os.environ, **told),
        start_time_ms=start_time_ms,
        is_child=True,
    )
    run.status = status
    run_info.named_by_id(run)
    active.joined(run, is_current=_is_started_by_multiprocessing())
    return run


def _told(own: "Settings") -> dict[str, Any]:
    """What another process is told as arguments, by which nothing secret is written where a pickle is kept."""
    told: dict[str, Any] = {
        "tracking_uri": own.tracking_uri,
        "experiment": own.experiment,
        "spool_dir": str(own.spool_dir),
        "spool_interval": own.spool_interval_s or settings.EVERY_CALL,
        "buffer_bytes": own.buffer_bytes,
        "finish_timeout": own.finish_timeout_s,
    }
    # A process that is being started reads it from a pipe, as it does multiprocessing's own key.
    context = sys.modules.get("multiprocessing.context")
    if context is not None and context.get_spawning_popen() is not None:
        told["token"] = own.token
    return told


def _is_started_by_multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    # One that is spawned knows its parent only after it has read what it works on.
    return process.parent_process() is not None or getattr(process.current_process(), "_inheriting", False)
