"""What every question has in common: the server, percent-encoded names, pages, and that one's own writes are seen."""

import operator
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

from stepstream import active, place, settings
from stepstream.entities import PagedList, ViewType
from stepstream.errors import QueryError
from stepstream.listed import listed
from stepstream.query import Server

Entity = TypeVar("Entity")
VIEWS: Final = {ViewType.ACTIVE_ONLY: "active", ViewType.DELETED_ONLY: "deleted", ViewType.ALL: "all"}


class Asking:
    """Waits for answers. Law: a question is sent after what open runs have logged before it, or `active.FLUSH_S` later.

    A run that cannot be flushed in time is no error: the answer then is what the server has. Raises QueryError.
    """

    def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        self._settings = settings.load(os.environ, tracking_uri=tracking_uri or registry_uri or place.tracking_uri())
        self._server = Server(self._settings)

    @property
    def tracking_uri(self) -> str:
        """The server that is asked."""
        return self._settings.tracking_uri

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        active.flush()
        return self._server.ask(method, path, body, **query)

    def _page(self, path: str, name: str, make: Callable[[Any], Entity], **body: Any) -> PagedList[Entity]:
        given = {key: value for key, value in body.items() if value is not None}
        answer = self._ask("POST", path, given)
        return PagedList(map(make, answer[name]), answer["next_page_token"])


def encoded(name: str) -> str:
    """A name as part of a path."""
    return quote(name, safe="")


def texts(said: Mapping[str, Any] | None) -> dict[str, str]:
    """Values as texts."""
    return {str(key): str(value) for key, value in (said or {}).items()}


def whole(said: Any, name: str) -> int:
    """A whole number of any type, or written as text. Raises QueryError for what is none."""
    try:
        is_written = isinstance(said, str) or (isinstance(said, float) and said.is_integer())
        return int(said) if is_written else int(operator.index(said))
    except (TypeError, ValueError):
        raise _wrong(f"{name} is a whole number, not {said!r}") from None


def ids(said: str | int | Iterable[str | int]) -> list[int]:
    """Of experiments: several, or one by itself. Raises QueryError for what is none."""
    return [whole(one, "an experiment's id") for one in listed(said)]


def view(said: int) -> str:
    """Which are seen. Raises QueryError for what is no ViewType."""
    try:
        return VIEWS[said]
    except (KeyError, TypeError):
        known = "ViewType.ACTIVE_ONLY (1), DELETED_ONLY (2) or ALL (3)"
        raise _wrong(f"a view is one of {known}, not {said!r}") from None


def _wrong(message: str) -> QueryError:
    return QueryError(message, status=400, error_code="INVALID_PARAMETER_VALUE")
