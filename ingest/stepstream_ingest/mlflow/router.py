"""How endpoints of MLflow's protocol are registered: under both prefixes, with bodies read and answers written."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import orjson
from aiohttp import web

from stepstream_ingest.bodies import whole
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.fields import Fields, from_query
from stepstream_schema import limits

MAX_BATCH_BYTES: Final = 32 * 2**20
"""Of a body that its call reads itself, such as a batch: 100 params and 100 tags of the greatest lengths that MLflow
stores are 17 MB where each character is escaped, and its clients leave it to the server to cut what is longer."""
PREFIXES: Final = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")

BodyCall: TypeAlias = Callable[[bytes], Awaitable[Mapping[str, Any]]]
Call: TypeAlias = Callable[[Fields], Awaitable[Mapping[str, Any]]]


class Router:
    """Registers calls: from what was said to what is answered."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    def get(self, path: str, call: Call) -> None:
        """A question, whose parameters are in the query."""
        self._add("GET", path, call)

    def post(self, path: str, call: Call) -> None:
        """A request with a JSON body."""
        self._add("POST", path, call)

    def post_body(self, path: str, call: BodyCall) -> None:
        """A request whose JSON body the call reads itself; `message` makes Fields of it where it does not."""
        for prefix in PREFIXES:
            self._app.router.add_post(prefix + path, _whole(call))

    def add(self, method: str, path: str, call: Call) -> None:
        """Any other method; its parameters are in the body, and in the path."""
        self._add(method, path, call)

    def _add(self, method: str, path: str, call: Call) -> None:
        async def handle(request: web.Request) -> web.Response:
            said = from_query(request.query) if request.method == "GET" else message(await _read(request))
            answer = await call(Fields(said | dict(request.match_info)))
            return web.Response(body=orjson.dumps(answer), content_type="application/json")

        for prefix in PREFIXES:
            self._app.router.add_route(method, prefix + path, handle)


def _whole(call: BodyCall) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        answer = await call(await _read(request, MAX_BATCH_BYTES))
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    return handle


async def _read(request: web.Request, most: int = limits.MAX_REQUEST_BYTES) -> bytes:
    body = await whole(request, most)
    if body and request.content_type != "application/json":
        raise ApiError(400, "INVALID_PARAMETER_VALUE", "Bad Request. Content-Type must be one of ['application/json'].")
    return body


def message(body: bytes) -> dict[str, Any]:
    """A body's JSON object; empty for what is none, as MLflow takes it."""
    try:
        said = orjson.loads(body or b"{}")
        # Some clients encode twice.
        said = orjson.loads(said) if isinstance(said, str) else said
    except orjson.JSONDecodeError:
        said = {}
    return said if isinstance(said, dict) else {}
