"""How a run has ended, in a script's words."""

import operator
from typing import Any, Final

from stepstream.notices import Notices

STATUSES: Final = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
"""In the order of MLflow's numbers, which begin at 1."""
WELL: Final = "FINISHED"
BADLY: Final = "FAILED"
"""What a status that nobody knows is taken for: whoever looks for runs that went wrong must find it."""


def status(said: Any, notices: Notices) -> str:
    """The status that is meant: in any case, MLflow's number, or none for a good end.

    What is none of them is said once and taken for FAILED. It does not raise: a wrong word at the end of a job must not
    leave the run open, and its last points where they are.
    """
    if said is None:
        return WELL
    try:
        known = _known(said)
        text = repr(said)[:80]
    except Exception:  # noqa: BLE001 - a foreign type may raise whatever it likes, and is no status either
        known, text = None, f"a {type(said).__name__}"
    if known is None:
        notices.once("status", f"{text} is no status of a run ({', '.join(STATUSES)}); the run has ended as {BADLY}")
        return BADLY
    return known


def _known(said: Any) -> str | None:
    if isinstance(said, str):
        return next((one for one in STATUSES if one == said.strip().upper()), None)
    try:
        number = operator.index(said)
    except TypeError:
        return None
    # A number that is no end, or true, is meant for an exit code.
    ended = isinstance(said, bool) or number <= STATUSES.index(WELL)
    return STATUSES[number - 1] if not ended and number <= len(STATUSES) else None
