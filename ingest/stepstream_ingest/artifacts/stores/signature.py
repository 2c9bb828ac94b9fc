"""URLs of the embedded store: what is allowed, until when, and a signature over both. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from stepstream_schema import paths

FIELDS: Final = ("token", "part", "size", "checksum", "filename", "type", "expires")
"""Everything that a URL may say besides its key; the signature covers all of it, in this order."""
OPEN: Final = {"part": 0, "size": -1}
"""What is not said, where that is not ''."""


class BadSignature(Exception):
    """The URL was not signed by this store, was altered, or has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """One request that the store will serve."""

    method: str
    key: str
    expires: int
    """Seconds since the epoch."""
    token: str = ""
    part: int = 0
    """0: the whole object."""
    size: int = -1
    """Bytes of the body; -1 where that is open."""
    checksum: str = ""
    """SHA-256 of the body, base64."""
    filename: str = ""
    type: str = ""


def url(permit: Permit, secret: bytes) -> str:
    """The URL, as a path of this server."""
    query = {name: str(getattr(permit, name)) for name in FIELDS if getattr(permit, name) != OPEN.get(name, "")}
    return f"{paths.STORE}/{quote(permit.key)}?{urlencode(query | {'signature': _signature(permit, secret)})}"


def check(method: str, key: str, query: Mapping[str, str], secret: bytes, now: float) -> Permit:
    """What a URL permits. Raises BadSignature."""
    try:
        permit = Permit(
            method=method,
            key=key,
            expires=int(query["expires"]),
            token=query.get("token", ""),
            part=int(query.get("part", "0")),
            size=int(query.get("size", "-1")),
            checksum=query.get("checksum", ""),
            filename=query.get("filename", ""),
            type=query.get("type", ""),
        )
        offered = query["signature"]
    except (KeyError, ValueError):
        raise BadSignature("this URL was not signed by this server") from None
    if not hmac.compare_digest(_signature(permit, secret).encode(), offered.encode("utf-8", "replace")):
        raise BadSignature("the signature does not fit this request: method, key, size and expiry are part of it")
    if permit.expires < now:
        raise BadSignature("this URL has expired; ask for a new one")
    return permit


def _signature(permit: Permit, secret: bytes) -> str:
    # Each value with its length: no two permits are written alike.
    values = [permit.method, permit.key, *(str(getattr(permit, name)) for name in FIELDS)]
    said = "".join(f"{len(value)}:{value}" for value in values)
    digest = hmac.new(secret, said.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
