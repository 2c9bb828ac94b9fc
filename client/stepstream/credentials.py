"""Who asks a server: a token, or the name and password that its address holds. Pure."""

import base64
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


class Basic(str):
    """`name:password` in the place of a token. Law: told to the server whose address held it, and to no other."""

    origin: Origin

    def __new__(cls, said: str, origin: Origin) -> "Basic":
        """Of one origin."""
        made = super().__new__(cls, said)
        made.origin = origin
        return made

    def __getnewargs__(self) -> tuple[str, Origin]:  # type: ignore[override]
        """For copies and pickles."""
        return str(self), self.origin

    def __repr__(self) -> str:
        return "Basic(...)"


def header(token: str | None, uri: str) -> str:
    """What a request to this address says as its Authorization; empty for none."""
    if not token or (isinstance(token, Basic) and token.origin != origin(uri)):
        return ""
    if isinstance(token, Basic):
        return f"Basic {base64.b64encode(token.encode()).decode()}"
    return f"Bearer {token}"


def held(uri: str, others: Iterable[str]) -> Basic | None:
    """The name and password of an address, or of the first of the others that is the same server's and has any."""
    place = origin(uri)
    who = _netloc(kept(uri, others)).rpartition("@")[0]
    # A name alone has an empty password (RFC 7617).
    said = unquote(who) if ":" in who else f"{unquote(who)}:"
    return Basic(said, place) if who and place is not None else None


def kept(uri: str, others: Iterable[str]) -> str:
    """The address with the name and password that it has, or that another one of the same server has."""
    place = origin(uri)
    for one in (uri, *others) if place is not None else ():
        who, at, _ = _netloc(one).rpartition("@")
        if at and origin(one) == place:
            parts = urlsplit(uri)
            return parts._replace(netloc=f"{who}@{parts.netloc.rpartition('@')[2]}").geturl()
    return uri


def without(uri: str) -> str:
    """The address for all to see."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return uri if host == parts.netloc else parts._replace(netloc=host).geturl()


def shown(said: str) -> str:
    """What may be no address at all, without what may be a password."""
    scheme, separator, rest = said.partition("://")
    _, at, tail = (rest if separator else scheme).rpartition("@")
    return f"{scheme + separator if separator else ''}***@{tail}" if at else said


def goes_astray(uri: str) -> bool:
    """Whether a password may be in it that is taken for a path, since it holds what ends a host: `bob:12/34@host`."""
    parts = urlsplit(uri)
    return "@" in parts.path + parts.query + parts.fragment


def origin(uri: str) -> Origin | None:
    """Scheme, host and port; None for what is no address."""
    try:
        parts = urlsplit(uri)
        return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return None


def _netloc(uri: str) -> str:
    try:
        return urlsplit(uri).netloc
    except ValueError:
        return ""
