"""What the routes below /v1 take and answer: said beside each handler, and together one OpenAPI 3.1 document.

Types are msgspec's: the same ones read requests, write answers and are written down here, so that they cannot differ.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, get_args
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

VERSION: Final = "3.1.0"
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
REF: Final = "#/components/schemas/{name}"
PREFIX: Final = "/v1/"
HEX_ID: Final = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
PATH_TYPES: Final[Mapping[type, Mapping[str, Any]]] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    UUID: HEX_ID,
}

RunId = Annotated[str, Meta(pattern="^[0-9a-fA-F]{32}$", description="32 hex digits")]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TimeMs = Annotated[int, Meta(ge=0, le=2**63 - 1, description="milliseconds since the epoch, UTC")]
Text = Annotated[str, Meta(pattern="^[^\u0000]*$")]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Error(Struct, kw_only=True, frozen=True):
    """Every refusal has this form."""

    error_code: str
    message: str
    """What happened, what is safe, and what to do next."""


class Nothing(Struct, frozen=True):
    """It is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route as the document shows it."""

    summary: str
    path: Mapping[str, type] = field(default_factory=dict)
    """Types of the path's parameters; those left out are texts."""
    query: type[Struct] | None = None
    body: Any = None
    """A type for JSON, or bytes."""
    body_type: str = JSON
    answer: Any = None
    """A type for JSON; None where there is no JSON form."""
    answer_types: Sequence[str] = (JSON,)
    status: int = 200


def describes(**said: Any) -> Callable[[Handler], Handler]:
    """Says what a handler takes and answers; its docstring is the summary. For handlers that read their requests."""

    def note(handler: Handler) -> Handler:
        handler.operation = Operation(summary=summary_of(handler), **said)  # type: ignore[attr-defined]
        return handler

    return note


def summary_of(handler: Callable[..., Any]) -> str:
    """The first sentence of its docstring."""
    return " ".join((handler.__doc__ or "").split("\n\n")[0].split())


def document(app: web.Application, version: str) -> dict[str, Any]:
    """Every route below /v1 of this application. Raises AttributeError for one that says nothing of itself."""
    routes = sorted(_routes(app))
    said = [(operation.query, operation.body, *_one_of(operation.answer)) for _, _, _, operation in routes]
    types: list[Any] = [one for types in said for one in types]
    types = [Error, *(one for one in types if one is not None and one is not bytes)]
    references, schemas = msgspec.json.schema_components(types, ref_template=REF)
    written = dict(zip(map(repr, types), references, strict=True))
    paths: dict[str, Any] = {}
    for path, method, name, operation in routes:
        paths.setdefault(path, {})[method.lower()] = _operation(path, name, operation, written, schemas)
    for _, _, _, operation in routes:
        # A query is shown as parameters, not as an object.
        if operation.query is not None:
            schemas.pop(operation.query.__name__, None)
    return {
        "openapi": VERSION,
        "info": {
            "title": "StepStream",
            "version": version,
            "description": "Experiments, runs, metrics, artifacts and models. Times are milliseconds since the epoch, "
            'UTC. NaN and infinities are the texts "NaN", "Infinity" and "-Infinity".',
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "the token is the password"},
            },
        },
        # A server without a token asks for nothing.
        "security": [{"bearer": []}, {"basic": []}, {}],
    }


def _routes(app: web.Application) -> Iterator[tuple[str, str, str, Operation]]:
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if path.startswith(PREFIX) and route.method != "HEAD":
            operation: Operation = route.handler.operation  # type: ignore[attr-defined]
            yield path, route.method, f"{route.method.lower()}_{_name(path)}", operation


def _name(path: str) -> str:
    return "_".join(re.findall(r"[a-z0-9]+", path.removeprefix(PREFIX)))


def _one_of(answer: Any) -> tuple[Any, ...]:
    """The alternatives of a union: objects that are told apart by what was asked for."""
    if answer is None:
        return ()
    return get_args(answer) if isinstance(answer, UnionType) else (answer,)


def _operation(
    path: str, name: str, one: Operation, written: Mapping[str, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = [
        {"name": key, "in": "path", "required": True, "schema": PATH_TYPES[one.path.get(key, str)]}
        for key in re.findall(r"\{(\w+)\}", path)
    ]
    if one.query is not None:
        shown = schemas[one.query.__name__]
        parameters += [
            {"name": key, "in": "query", "required": key in shown["required"], "schema": schema}
            for key, schema in shown["properties"].items()
        ]
    said: dict[str, Any] = {"operationId": name, "summary": one.summary}
    if parameters:
        said["parameters"] = parameters
    if one.body is not None:
        required = bool(schemas.get(getattr(one.body, "__name__", ""), {"required": [1]})["required"])
        shape = {} if one.body is bytes else {"schema": written[repr(one.body)]}
        said["requestBody"] = {"required": required, "content": {one.body_type: shape}}
    answers = [written[repr(answer)] for answer in _one_of(one.answer)]
    whole = {"schema": answers[0] if len(answers) == 1 else {"anyOf": answers}}
    content = {kind: whole if kind == JSON else {} for kind in one.answer_types}
    done: dict[str, Any] = {"description": "done"} | ({"content": content} if content else {})
    error = {"description": "refused", "content": {JSON: {"schema": written[repr(Error)]}}}
    return said | {"responses": {str(one.status): done, "default": error}}
