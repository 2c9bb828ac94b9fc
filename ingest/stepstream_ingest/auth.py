"""Who may speak to the server: whoever has a token, as Bearer, or as Basic's password as MLflow's client sends it."""

import base64
import binascii
import hmac
from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stepstream_ingest.errors import ApiError
from stepstream_schema import paths

OPEN_PATHS = frozenset({paths.HEALTH, paths.READY, paths.VERSION})
"""What a load balancer asks before it knows anybody."""


def authorised(header: str, tokens: Sequence[str]) -> bool:
    """Whether an Authorization header carries one of the tokens; each is compared in constant time."""
    kind, _, credentials = header.partition(" ")
    match kind.lower():
        case "bearer":
            offered = credentials.strip()
        case "basic":
            try:
                offered = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        case _:
            return False
    # A header may hold any bytes, which aiohttp keeps as surrogates.
    said = offered.encode("utf-8", "surrogateescape")
    return any(hmac.compare_digest(said, token.encode()) for token in tokens)


def middleware(tokens: Sequence[str]) -> Middleware:
    """Refuses requests without one of the tokens; lets everything through when there is none."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # What the embedded store serves is permitted by the signature in its URL.
        if tokens and request.path not in OPEN_PATHS and not request.path.startswith(paths.STORE + "/"):
            header = request.headers.get("Authorization", "")
            if not authorised(header, tokens):
                what = "a wrong token" if header else "no token"
                raise ApiError(
                    401, "UNAUTHENTICATED", f"this server needs a token and got {what}; set STEPSTREAM_TOKEN"
                )
        return await handler(request)

    return check
