"""The run that a module-level function means: the one that is named, this thread's, or a new one."""

from stepstream import active
from stepstream.run import Run
from stepstream.start import start_run


def open_run() -> Run:
    """The run that this thread logs to; started where none is open."""
    return active.current() or start_run()


def run_of(run_id: str | None) -> Run | None:
    """The open run of an id, or without one of this thread; None for an id that is not open here."""
    return active.by_id(run_id) if run_id else open_run()


def wait(run: Run, synchronous: bool | None) -> None:
    """Until what was logged is durable, where that was asked for."""
    if synchronous:
        run.flush()


def known(run_id: str | None) -> str:
    """The id of the run that is meant, once the server knows it and what was logged of it; the run may be a new one."""
    run = run_of(run_id)
    if run is None:
        return str(run_id)
    run.flush()
    return run.run_id
