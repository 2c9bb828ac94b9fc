"""Holds every request and answer below /v1 against the OpenAPI document, while other tests make them."""

import json
from typing import Any

import jsonschema
from aiohttp import web

from stepstream_ingest import openapi

JSON = "application/json"


class _Heard:
    """The body of a request, which keeps the pieces that are read of it: it is read once, and kept by nobody."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self.pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def readany(self) -> bytes:
        self.pieces.append(await self._content.readany())
        return self.pieces[-1]


class Contract:
    """Middleware of an application in a test. Law: what is taken and answered is what the document says."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._document: dict[str, Any] | None = None

    def add_to(self, app: web.Application) -> None:
        @web.middleware
        async def check(request: web.Request, handler: Any) -> web.StreamResponse:
            request._payload = heard = _Heard(request._payload)
            response = await handler(request)
            resource = request.match_info.route.resource
            if resource is not None and resource.canonical.startswith(openapi.PREFIX):
                self._document = self._document or json.loads(json.dumps(openapi.document(app, "test")))
                body = b"".join(heard.pieces) if response.status < 400 else b""
                self._check(f"{request.method} {resource.canonical}", request, body, response)
            return response

        # Outermost: it sees what clients see.
        app.middlewares.insert(0, check)

    def _check(self, name: str, request: web.Request, body: bytes, response: web.StreamResponse) -> None:
        method, _, path = name.partition(" ")
        said = self._document["paths"][path][method.lower()]
        known = {one["name"] for one in said.get("parameters", ()) if one["in"] == "query"}
        if response.status < 400 and not path.startswith("/v1/store"):
            self._note(name, [f"the query has {one}" for one in request.query if one not in known])
        # Files are refused one by one: an answer of 200 may hold refusals of what the document forbids.
        refused = isinstance(response, web.Response) and b'"refused"' in bytes(response.body or b"")
        if body and not refused and JSON in said.get("requestBody", {}).get("content", {}):
            self._match(f"body of {name}", said["requestBody"]["content"][JSON], json.loads(body))
        answered = said["responses"].get(str(response.status))
        if answered is None and response.status < 400 and response.status != 206:
            self._note(name, [f"it answers {response.status}"])
        shape = (answered or said["responses"]["default"]).get("content", {})
        if isinstance(response, web.Response) and response.body and response.content_type not in shape:
            known_type = any(kind.endswith("*") and response.content_type.startswith(kind[:-1]) for kind in shape)
            self._note(name, [] if known_type else [f"it answers {response.content_type}"])
        if isinstance(response, web.Response) and response.content_type == JSON and JSON in shape:
            self._match(f"answer of {name}", shape[JSON], json.loads(bytes(response.body)))

    def _match(self, what: str, shape: dict[str, Any], value: Any) -> None:
        if "schema" in shape:
            schema = {**shape["schema"], "components": self._document["components"]}
            problems = jsonschema.Draft202012Validator(schema).iter_errors(value)
            self._note(what, [f"{one.json_path}: {one.message[:300]}" for one in problems])

    def _note(self, what: str, problems: list[str]) -> None:
        self.broken += [f"{what}: {one}" for one in problems]
