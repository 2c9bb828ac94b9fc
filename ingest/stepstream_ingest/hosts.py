"""Which names a server answers to, and to which pages in a browser: a web page must not speak for its reader.

A page of anywhere may send requests to a server on its reader's machine, and, once its name leads there ("DNS
rebinding"), read the answers. The first is told by what browsers say of themselves, the second by the name that was
asked for. See https://developer.mozilla.org/docs/Web/HTTP/Headers/Sec-Fetch-Site.
"""

import ipaddress
from collections.abc import Container, Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stepstream_ingest.auth import OPEN_PATHS
from stepstream_ingest.errors import ApiError

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
OWN_PAGES: Final = frozenset({"same-origin", "none"})
"""What a browser says of a request that the server's own page makes, or its reader."""


def is_known(host: str | None, names: Container[str]) -> bool:
    """Whether a Host header names this machine by an address, as localhost, or by one of these names.

    A name can be made to lead here by whoever owns it; an address cannot.
    """
    if host is None:
        return True  # no browser
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost") or name in names:
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin sends this: what is no browser says nothing of it."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in OWN_PAGES
    origin = headers.get("Origin")
    # A proxy may ask by another name than it was asked by.
    asked = headers.get("Host", ""), headers.get("X-Forwarded-Host", "").split(",")[0].strip()
    return origin is not None and not any(_is_same(origin, host) for host in asked)


def _is_same(origin: str, host: str) -> bool:
    """Whether a page of that origin came from this host; some proxies pass a host on without its port."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        port = page.port or DEFAULT_PORTS.get(page.scheme)
        return page.hostname is not None and page.hostname == asked.hostname and asked.port in (None, port)
    except ValueError:
        return False


def middleware(names: Container[str] | None) -> Middleware:
    """Refuses changes that a foreign page asks for, and unknown names; with None any name is taken."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host")
        if names is not None and request.path not in OPEN_PATHS and not is_known(host, names):
            raise ApiError(
                403,
                "PERMISSION_DENIED",
                f"this server does not answer to the name {host!r}; where it is meant, start it with --allowed-hosts "
                "and that name, or with a token",
            )
        if request.method not in SAFE_METHODS and is_foreign(request.headers):
            raise ApiError(403, "PERMISSION_DENIED", "a page of another site may change nothing here")
        return await handler(request)

    return check
