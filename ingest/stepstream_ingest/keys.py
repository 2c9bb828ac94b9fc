"""What keys of metrics, params and tags may be, as MLflow has it. Pure."""

import posixpath
import re
from functools import lru_cache
from typing import Final

from stepstream_ingest.errors import ApiError
from stepstream_schema import limits

KEY: Final = re.compile(r"[/\w.\- :]+")
KNOWN_KEYS: Final = 16_384
"""Keys that are remembered to be good or not, none longer than a key may be: a run says the same ones all day."""
CHARACTERS: Final = (
    "Invalid {what} name: {key!r:.260}. Names may only contain alphanumerics, underscores (_), dashes (-), "
    "periods (.), spaces ( ), colon(:) and slashes (/)."
)
PATHS: Final = (
    "Invalid {what} name: {key!r:.260}. Names may be treated as files in certain cases, and must not resolve to other "
    "names when treated as such."
)
LENGTH: Final = f"{{what}} name {{key!r:.60}}... exceeds the maximum length of {limits.MAX_KEY_CHARS} characters"


def check_key(key: str, what: str) -> str:
    """A key of a metric, param or tag. Raises ApiError."""
    fault = _known_fault(key) if len(key) <= limits.MAX_KEY_CHARS else _fault(key) or LENGTH
    if fault is not None:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", fault.format(what=what, key=key))
    return key


def _fault(key: str) -> str | None:
    if not key:
        return "{what} name cannot be empty."
    if not KEY.fullmatch(key):
        return CHARACTERS
    if posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == ".":
        return PATHS
    return None


_known_fault: Final = lru_cache(maxsize=KNOWN_KEYS)(_fault)
