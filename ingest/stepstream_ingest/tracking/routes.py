"""Experiments and runs over HTTP."""

import os
import time
from typing import Any, Final
from uuid import UUID

import orjson
from aiohttp import web

from stepstream_ingest.errors import ApiError
from stepstream_ingest.tracking.store import TrackingStore
from stepstream_schema import limits, paths
from stepstream_schema.records import RUN_STATUSES

LIST_LIMIT: Final = 1000


class TrackingRoutes:
    """Answers for experiments and runs."""

    def __init__(self, store: TrackingStore) -> None:
        self._store = store

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post(paths.EXPERIMENTS, self.create_experiment)
        app.router.add_get(paths.EXPERIMENTS, self.experiments)
        app.router.add_get(paths.EXPERIMENTS + "/{experiment_id}", self.experiment)
        app.router.add_post(paths.RUNS, self.create_run)
        app.router.add_get(paths.RUNS, self.runs)
        app.router.add_get(paths.run("{run_id}"), self.run)
        app.router.add_post(paths.run("{run_id}") + "/finish", self.finish)

    async def create_experiment(self, request: web.Request) -> web.Response:
        """The experiment of a name, made if there is none."""
        body = await _body(request)
        return _json(await self._store.create_experiment(_name(body.get("name"), "name")))

    async def experiments(self, request: web.Request) -> web.Response:
        """One experiment by ?name=, or the newest."""
        name = request.query.get("name")
        if name:
            return _json(await self._store.experiment_by_name(name))
        return _json({"experiments": await self._store.experiments(LIST_LIMIT)})

    async def experiment(self, request: web.Request) -> web.Response:
        """One experiment by its number."""
        return _json(await self._store.experiment_by_id(_number(request.match_info["experiment_id"], "experiment_id")))

    async def create_run(self, request: web.Request) -> web.Response:
        """Announce a run without frames."""
        body = await _body(request)
        if body.get("experiment_id") is not None:
            experiment = await self._store.experiment_by_id(_number(body["experiment_id"], "experiment_id"))
        else:
            experiment = await self._store.create_experiment(_name(body.get("experiment", "Default"), "experiment"))
        start = body.get("start_time_ms")
        run = await self._store.create_run(
            run_id=_run_id(body.get("run_id") or os.urandom(16).hex()),
            experiment_id=experiment["experiment_id"],
            name=_text(body.get("name", ""), "name"),
            user=_text(body.get("user", ""), "user"),
            start_time_ms=time.time_ns() // 1_000_000 if start is None else _number(start, "start_time_ms"),
        )
        return _json(run)

    async def runs(self, request: web.Request) -> web.Response:
        """The newest runs, of one experiment or of all."""
        experiment = request.query.get("experiment_id")
        limit = _number(request.query.get("limit", "100"), "limit")
        if not 1 <= limit <= LIST_LIMIT:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"limit must lie between 1 and {LIST_LIMIT}, not {limit}")
        found = await self._store.runs(_number(experiment, "experiment_id") if experiment else None, limit)
        return _json({"runs": found})

    async def run(self, request: web.Request) -> web.Response:
        """One run."""
        return _json(await self._store.run(_run_id(request.match_info["run_id"])))

    async def finish(self, request: web.Request) -> web.Response:
        """End a run."""
        body = await _body(request)
        status = body.get("status", "FINISHED")
        if status not in RUN_STATUSES:
            known = ", ".join(sorted(RUN_STATUSES))
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"status is one of {known}, not {status!r:.40}")
        end = body.get("end_time_ms")
        run_id = _run_id(request.match_info["run_id"])
        return _json(await self._store.finish_run(run_id, status, None if end is None else _number(end, "end_time_ms")))


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read() or b"{}")
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "MALFORMED", f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "MALFORMED", "the body is not a JSON object")
    return body


def _json(said: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(said), content_type="application/json")


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or len(value) > limits.MAX_NAME_CHARS or "\0" in value:
        what = f"text of at most {limits.MAX_NAME_CHARS} characters without NUL"
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{field} must be {what}")
    return value


def _name(value: object, field: str) -> str:
    if not _text(value, field).strip():
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{field} must not be empty")
    return str(value)


def _number(value: object, field: str) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{field} must be a whole number, not {value!r:.40}") from None
    if not -(2**63) <= number < 2**63:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{field} must fit int64")
    return number


def _run_id(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"a run id is 32 hex digits, not {value!r:.60}") from None
