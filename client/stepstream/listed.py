"""Arguments that are lists, and of which a script may say only one."""

from numbers import Integral
from typing import Any


def listed(said: Any) -> list[Any]:
    """What was said, as a list: one text or number alone is one of them, and no list of letters; None is none."""
    if said is None:
        return []
    return [said] if isinstance(said, str | Integral) else list(said)
