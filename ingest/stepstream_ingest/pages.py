"""Page tokens: where the next page begins, and of which question. Pure."""

import base64
import binascii
import hashlib
from collections.abc import Sequence

import orjson

from stepstream_ingest.errors import ApiError


def token(offset: int, question: Sequence[object] = (), step: int | None = None) -> str:
    """Opaque to clients. With a step, the offset counts from there."""
    said = {"offset": offset, "of": _digest(question)} | ({} if step is None else {"step": step})
    return base64.b64encode(orjson.dumps(said)).decode()


def offset(text: str, question: Sequence[object] = ()) -> int:
    """Where the page of a token begins; 0 for ''. Raises ApiError for one that is not of this question."""
    return place(text, question)[0]


def place(text: str, question: Sequence[object] = ()) -> tuple[int, int | None]:
    """The same, and from which step it counts."""
    if not text:
        return 0, None
    try:
        said = orjson.loads(base64.b64decode(text, validate=True))
        found, step = said["offset"], said.get("step")
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
        raise _wrong("it cannot be read") from None
    if not _is_int64(found) or found < (step is None) or not (step is None or _is_int64(step)):
        raise _wrong("it names no page")
    if said.get("of") != _digest(question):
        raise _wrong("it belongs to another filter or order; ask for the first page")
    return found, step


def _is_int64(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _digest(question: Sequence[object]) -> str:
    return hashlib.sha256(repr(list(question)).encode()).hexdigest()[:16]


def _wrong(why: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", f"Invalid page token: {why}")
