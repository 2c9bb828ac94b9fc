"""How calls of our own JSON API are registered: a function's types say what is read, and what is answered."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, get_type_hints
from uuid import UUID

import msgspec
from aiohttp import web

from stepstream_ingest.bodies import whole
from stepstream_ingest.errors import ApiError
from stepstream_ingest.openapi import JSON, Operation, summary_of

Call = Callable[..., Awaitable[Any]]
MAX_ID: Final = 2**63
MAX_ID_CHARS: Final = 40
"""Python refuses to read whole numbers of thousands of digits."""


class Router:
    """Registers calls. Law: a call is only made with values of the types it names; all else is refused with 400."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    def add(self, method: str, path: str, call: Call) -> None:
        """The parameters `body` and `query` are read from there, all others from the path."""
        types = get_type_hints(call, include_extras=True)
        answer = types.pop("return")
        names = inspect.signature(call).parameters
        body, query = types.pop("body", None), types.pop("query", None)
        from_path = {name: types[name] for name in names if name in types}
        decoder = msgspec.json.Decoder(body) if body is not None else None

        async def handle(request: web.Request) -> web.Response:
            said: dict[str, Any] = {
                name: _from_path(request.match_info[name], name, kind) for name, kind in from_path.items()
            }
            if decoder is not None:
                said["body"] = _decoded(await whole(request) or b"{}", decoder)
            if query is not None:
                said["query"] = _queried(request.query, query)
            return web.Response(body=msgspec.json.encode(await call(**said)), content_type=JSON)

        handle.operation = Operation(  # type: ignore[attr-defined]
            summary=summary_of(call), path=from_path, query=query, body=body, answer=answer
        )
        self._app.router.add_route(method, path, handle)


def run_uuid(text: str) -> UUID:
    """A run's id. Raises ApiError."""
    try:
        return UUID(text)
    except ValueError:
        raise invalid(f"a run id is 32 hex digits, not {text[:60]!r}") from None


def invalid(message: str) -> ApiError:
    """The request cannot be meant."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def _from_path(text: str, name: str, kind: type) -> Any:
    if kind is UUID:
        return run_uuid(text)
    if kind is int:
        if not text.isdecimal() or len(text) > MAX_ID_CHARS or int(text) >= MAX_ID:
            raise invalid(f"{name} is a whole number, not {text[:40]!r}")
        return int(text)
    return text


def _decoded(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(f"the body is not as it must be: {error}; GET /v1/openapi.json says how") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "MALFORMED", f"the body is not JSON: {error}") from error


def _queried(query: Mapping[str, str], kind: type) -> Any:
    try:
        return msgspec.convert(dict(query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(f"the query is not as it must be: {error}; GET /v1/openapi.json says how") from error
