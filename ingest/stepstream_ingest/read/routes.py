"""GET of series and histories."""

import math
from typing import Any, Final
from uuid import UUID

import msgpack
import numpy as np
import orjson
from aiohttp import web

from stepstream_ingest.errors import ApiError
from stepstream_ingest.read.history import History, Wanted
from stepstream_ingest.read.points import Points
from stepstream_ingest.read.thin import thin
from stepstream_schema import paths
from stepstream_schema.attempt import Attempt

MSGPACK: Final = "application/msgpack"


class ReadRoutes:
    """Answers readers."""

    def __init__(self, history: History) -> None:
        self._history = history

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get(paths.run_metrics("{run_id}"), self.series)
        app.router.add_get(paths.run_history("{run_id}"), self.points)

    async def series(self, request: web.Request) -> web.Response:
        """The series of a run, each with its summary."""
        run_id = await self._run(request)
        rows = await self._history.series(run_id)
        return _json({"series": [_series(row) for row in rows]})

    async def points(self, request: web.Request) -> web.Response:
        """The points of one series: all of them, or thinned to `points`."""
        query = request.query
        key = query.get("key")
        if not key:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", "say which series: ?key=loss")
        rank = query.get("rank")
        wanted = Wanted(
            run_id=await self._run(request),
            key=key,
            rank=None if rank in (None, "", "none") else _int(rank or "", "rank"),
            any_rank=rank is None,
            attempt=_attempt(query.get("attempt")),
            start_step=_optional_int(query.get("start_step"), "start_step"),
            end_step=_optional_int(query.get("end_step"), "end_step"),
        )
        most = _optional_int(query.get("points"), "points")
        if most is not None and most < 1:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"points must be at least 1, not {most}")
        found = await self._history.points(wanted)
        shown = found if most is None else thin(found, most)
        head = {"key": key, "rank": wanted.rank, "attempt": query.get("attempt"), "count": len(found)}
        if MSGPACK in request.headers.get("Accept", ""):
            return web.Response(body=msgpack.packb(head | _bins(shown)), content_type=MSGPACK)
        return _json(head | _lists(shown))

    async def _run(self, request: web.Request) -> UUID:
        text = request.match_info["run_id"]
        try:
            run_id = UUID(text)
        except ValueError:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"a run id is 32 hex digits, not {text[:60]!r}") from None
        if not await self._history.run_exists(run_id):
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no run {run_id.hex}")
        return run_id


def _bins(points: Points) -> dict[str, bytes]:
    return {
        "steps": points.steps.astype("<i8").tobytes(),
        "times_ms": points.times_ms.astype("<i8").tobytes(),
        "values": points.values.astype("<f8").tobytes(),
    }


def _lists(points: Points) -> dict[str, Any]:
    return {
        "steps": points.steps,
        "times_ms": points.times_ms,
        "values": points.values
        if np.isfinite(points.values).all()
        else [_number(one) for one in points.values.tolist()],
    }


def _series(row: Any) -> dict[str, Any]:
    attempt = Attempt.unpack(row["attempt"])
    return {
        "key": row["key"],
        "rank": row["rank"],
        "attempt": [attempt.scheduler, attempt.elastic, attempt.resume],
        "count": row["count"],
        "last": _number(row["last"]),
        "last_step": row["last_step"],
        "last_time_ms": row["last_time_ms"],
        "min": _number(row["min"]),
        "max": _number(math.nan if row["max"] is None else row["max"]),
    }


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity; they travel as MLflow writes them."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _json(said: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json")


def _attempt(text: str | None) -> int | None:
    if not text:
        return None
    try:
        scheduler, elastic, resume = (int(part) for part in text.split("."))
        return Attempt(scheduler, elastic, resume).packed
    except ValueError:
        message = f"an attempt is written scheduler.elastic.resume, for example 0.1.0, not {text!r}"
        raise ApiError(400, "INVALID_PARAMETER_VALUE", message) from None


def _optional_int(text: str | None, name: str) -> int | None:
    return None if text in (None, "") else _int(text or "", name)


def _int(text: str, name: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{name} must be a whole number, not {text!r}") from None
    if not -(2**63) <= value < 2**63:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{name} must fit int64")
    return value
