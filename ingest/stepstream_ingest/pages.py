"""Page tokens: where the next page begins, and of which question. Pure."""

import base64
import binascii
import hashlib
from collections.abc import Sequence

import orjson

from stepstream_ingest.errors import ApiError


def token(offset: int, question: Sequence[object] = ()) -> str:
    """Opaque to clients."""
    return base64.b64encode(orjson.dumps({"offset": offset, "of": _digest(question)})).decode()


def offset(text: str, question: Sequence[object] = ()) -> int:
    """Where the page of a token begins; 0 for ''. Raises ApiError for one that is not of this question."""
    if not text:
        return 0
    try:
        said = orjson.loads(base64.b64decode(text, validate=True))
        found = said["offset"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise _wrong("it cannot be read") from None
    if type(found) is not int or found < 1:
        raise _wrong("it names no page")
    if said.get("of") != _digest(question):
        raise _wrong("it belongs to another filter or order; ask for the first page")
    return found


def _digest(question: Sequence[object]) -> str:
    return hashlib.sha256(repr(list(question)).encode()).hexdigest()[:16]


def _wrong(why: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", f"Invalid page token: {why}")
