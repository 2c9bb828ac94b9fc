"""What keys of metrics, params and tags may be, as MLflow has it. Pure."""

import posixpath
import re
from typing import Final

from stepstream_ingest.errors import ApiError
from stepstream_schema import limits

KEY: Final = re.compile(r"[/\w.\- :]+")


def check_key(key: str, what: str) -> str:
    """A key of a metric, param or tag. Raises ApiError."""
    if not key:
        raise _invalid(f"{what} name cannot be empty.")
    if not KEY.fullmatch(key):
        raise _invalid(
            f"Invalid {what} name: {key!r:.260}. Names may only contain alphanumerics, underscores (_), dashes (-), "
            "periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    if posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == ".":
        raise _invalid(
            f"Invalid {what} name: {key!r:.260}. Names may be treated as files in certain cases, and must not resolve "
            "to other names when treated as such."
        )
    if len(key) > limits.MAX_KEY_CHARS:
        raise _invalid(f"{what} name {key[:60]!r}... exceeds the maximum length of {limits.MAX_KEY_CHARS} characters")
    return key


def _invalid(message: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)
