"""Columns as JSON, as msgpack and as Arrow IPC: the border to pyarrow."""

import asyncio
import io
import logging
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt
import orjson
from aiohttp import web

from stepstream_ingest import telemetry
from stepstream_ingest.errors import ApiError
from stepstream_ingest.read.threads import aside
from stepstream_schema import paths

Format: TypeAlias = Literal["json", "msgpack", "arrow"]
Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]

LOGGER: Final = logging.getLogger(__name__)

PIECE: Final = 2**16
"""Values written at once: some 5 ms."""
STILL_S: Final = 60.0
"""A reader that takes not even a piece in so long is gone."""
PIECE_BYTES: Final = 64 * 2**10
_TYPES: Final[dict[str, Format]] = {paths.MSGPACK: "msgpack", paths.ARROW: "arrow", "application/json": "json"}


def negotiate(request: web.Request) -> Format:
    """What the client wants: the first of our types in its Accept header, else JSON."""
    for part in request.headers.get("Accept", "").split(","):
        kind = _TYPES.get(part.split(";")[0].strip())
        if kind is not None:
            return kind
    return "json"


async def respond(answer: dict[str, Any], kind: Format) -> web.Response:
    """An answer whose arrays, at any depth, are columns."""
    if kind == "msgpack":
        return web.Response(body=await aside(_msgpack, answer), content_type=paths.MSGPACK)
    if kind == "arrow":
        raise ApiError(406, "NOT_ACCEPTABLE", "this answer has no Arrow form; ask for JSON or msgpack")
    return web.Response(body=await aside(_json, answer), content_type="application/json")


def _msgpack(answer: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(answer, default=_bin)
    return packed


def _json(answer: dict[str, Any]) -> bytes:
    return orjson.dumps(_for_json(answer))


def _bin(column: object) -> bytes:
    """A column as little-endian words: int64, or float64."""
    assert isinstance(column, np.ndarray)
    return column.astype("<f8" if column.dtype.kind == "f" else "<i8").tobytes()


def _for_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_for_json(item) for item in value]
    return _list(value) if isinstance(value, np.ndarray) else value


def _list(column: npt.NDArray[Any]) -> orjson.Fragment:
    """A column in pieces: while one is written no other thread runs."""
    pieces = [column[start : start + PIECE] for start in range(0, len(column), PIECE)]
    return orjson.Fragment(b"[" + b",".join(_items(piece) for piece in pieces) + b"]")


def _items(piece: npt.NDArray[Any]) -> bytes:
    if piece.dtype.kind == "f" and not np.isfinite(piece).all():
        return orjson.dumps([number(one) for one in piece.tolist()])[1:-1]
    return orjson.dumps(np.ascontiguousarray(piece), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def number(value: float) -> float | str:
    """JSON has no NaN and no infinity; they travel as MLflow writes them."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


async def stream_arrow(request: web.Request, batches: AsyncGenerator[Columns]) -> web.StreamResponse:
    """Columns as an Arrow IPC stream, a record batch for each; nothing but the present one is held.

    However it ends, `batches` is closed by then: what it holds is not left to whoever collects garbage.
    """
    response = web.StreamResponse(headers={"Content-Type": paths.ARROW})
    async with aclosing(batches):
        try:
            await _stream(request, response, batches)
        except BaseException as error:
            if not response.prepared:
                raise
            _break_off(request, error)
            raise
    return response


async def _stream(request: web.Request, response: web.StreamResponse, batches: AsyncGenerator[Columns]) -> None:
    arrow = await aside(_arrow)
    sink = io.BytesIO()
    writer: Any = None
    async for columns in batches:
        table = arrow.record_batch(dict(columns))
        if writer is None:
            # Not before the first batch: until then an error is still an ordinary answer.
            await response.prepare(request)
            writer = arrow.ipc.new_stream(sink, table.schema)
        writer.write_batch(table)
        await _write(response, _drain(sink))
    assert writer is not None
    writer.close()
    await _write(response, _drain(sink))
    await response.write_eof()


def _arrow() -> Any:
    import pyarrow  # 30 MB, and a second, that a server needs only once somebody exports

    return pyarrow


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Raises ConnectionResetError for a reader that stands still: what it holds others may wait for."""
    try:
        for start in range(0, len(data), PIECE_BYTES):
            async with asyncio.timeout(STILL_S):
                await response.write(memoryview(data)[start : start + PIECE_BYTES])
    except TimeoutError:
        telemetry.REQUESTS_TURNED_AWAY.labels("reader still").inc()
        raise ConnectionResetError(f"its reader has taken nothing for {STILL_S:g} s") from None


def _break_off(request: web.Request, error: BaseException) -> None:
    """An answer that has begun cannot become an error: it ends before its end, which its reader is told by that."""
    if request.transport is not None:
        request.transport.abort()
    if not isinstance(error, Exception) or isinstance(error, ConnectionError):
        # The reader went away, or the server stops, or the reader took longer than a snapshot may be held.
        LOGGER.info("%s %s was broken off: %r", request.method, request.path, error)
        return
    LOGGER.warning("%s %s was broken off", request.method, request.path, exc_info=error)
    raise ConnectionResetError(f"broken off: {error!r}") from error


def _drain(sink: io.BytesIO) -> bytes:
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data
