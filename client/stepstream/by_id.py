"""The experiment that an id names, whose name its runs must say: the server is asked for it."""

import logging
import os
import time
from collections.abc import Mapping
from typing import Final

from stepstream import place, settings
from stepstream.entities import Experiment
from stepstream.errors import QueryError
from stepstream.query import Server
from stepstream.settings import Settings
from stepstream_schema import paths

LOGGER: Final = logging.getLogger("stepstream")
VARIABLE: Final = "MLFLOW_EXPERIMENT_ID"
NONE_SUCH: Final = (400, 404)
"""What the server says of an id that is none, or of one that is deleted. All else is about the server or who asks."""
REMEMBERED_S: Final = 60.0
"""That nobody answered: each start would wait for it."""

_names: Final[dict[tuple[str, str], str]] = {}
_silent: Final[dict[tuple[str, str], float]] = {}


def active(experiment_id: str | int, server: Server) -> Experiment:
    """An experiment that runs may belong to. Raises QueryError."""
    from stepstream.tracking import said
    from stepstream.tracking.asking import whole

    found = said.experiment(server.ask("GET", paths.experiment(str(whole(experiment_id, "experiment_id")))))
    if found.lifecycle_stage != "active":
        # Nobody would find its runs.
        raise QueryError(
            f"the experiment {found.name!r} (id {found.experiment_id}) is deleted: bring it back by "
            f"restore_experiment('{found.experiment_id}'), or name another",
            status=400,
            error_code="INVALID_PARAMETER_VALUE",
        )
    return found


def is_said() -> bool:
    """Whether MLFLOW_EXPERIMENT_ID counts."""
    return _said(os.environ) is not None


def of_start(loaded: Settings) -> str | None:
    """Of MLFLOW_EXPERIMENT_ID, where no name is said; asked for once in a process. Raises QueryError for none such.

    None where nobody says it in time, and that is told: a job of many ranks must not fail to start for want of a name.
    """
    by_id = _said(os.environ)
    if by_id is None:
        return None
    asked = (loaded.tracking_uri, by_id)
    if asked in _names:
        return _names[asked]
    if time.monotonic() - _silent.get(asked, -REMEMBERED_S) < REMEMBERED_S:
        return None
    try:
        _names[asked] = active(by_id, Server(loaded).hurried()).name
    except QueryError as error:
        if error.status in NONE_SUCH:
            raise _named(error, by_id) from error
        _silent[asked] = time.monotonic()
        LOGGER.warning(
            "stepstream: %s; runs that start now belong to the experiment %r instead. With MLFLOW_EXPERIMENT_NAME they "
            "belong where they should also while nobody answers",
            _named(error, by_id),
            settings.DEFAULT_EXPERIMENT,
        )
        return None
    return _names[asked]


def of_question(loaded: Settings) -> str | None:
    """The same, for who asks for its runs: those of another would be a wrong answer. Raises QueryError."""
    by_id = _said(os.environ)
    if by_id is None:
        return None
    asked = (loaded.tracking_uri, by_id)
    try:
        return _names.setdefault(asked, _names.get(asked) or active(by_id, Server(loaded)).name)
    except QueryError as error:
        raise _named(error, by_id) from error


def _said(environ: Mapping[str, str]) -> str | None:
    if place.experiment() or any(environ.get(name) for name in settings.EXPERIMENT_NAMES):
        return None
    return environ.get(VARIABLE) or None


def _named(error: QueryError, by_id: str) -> QueryError:
    return QueryError(f"{VARIABLE} is {by_id!r}: {error}", status=error.status, error_code=error.error_code)
