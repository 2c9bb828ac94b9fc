"""Questions about metrics over HTTP."""

import math
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from aiohttp import web
from msgspec import Struct

from stepstream_ingest.bodies import json_object
from stepstream_ingest.errors import ApiError
from stepstream_ingest.openapi import JSON, describes
from stepstream_ingest.read import formats, messages, view
from stepstream_ingest.read.exports import Exports
from stepstream_ingest.read.formats import Columns
from stepstream_ingest.read.history import MAX_ANSWER_POINTS, History, Wanted, Window
from stepstream_ingest.read.layers import NO_RANK
from stepstream_ingest.read.ranks import over_ranks
from stepstream_ingest.read.threads import aside
from stepstream_schema import paths
from stepstream_schema.attempt import Attempt
from stepstream_schema.buckets import FLOATS, INTS, Buckets
from stepstream_schema.points import Points

MAX_BUCKETS: Final = 10_000
MAX_SERIES: Final = 1_000
"""Metrics of one question."""
DEFAULT_BUCKETS: Final = 1_000
POINTS_PER_BUCKET: Final = 4
AT_ONCE_POINTS: Final = 2**18
"""A series of no more is not streamed: 6 MB as columns, which hold no connection while they are sent."""
NUMBER: Final = re.compile(r"[+-]?[0-9]+")
DIGITS: Final = 20
COLUMNAR: Final = (JSON, paths.MSGPACK)


class ReadRoutes:
    """Answers readers."""

    def __init__(self, history: History, exports: Exports) -> None:
        self._history = history
        self._exports = exports

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get(paths.run_metrics("{run_id}"), self.series)
        app.router.add_get(paths.run_history("{run_id}"), self.one)
        app.router.add_get(paths.run_ranks("{run_id}"), self.ranks)
        app.router.add_post(paths.HISTORY, self.many)

    @describes(path={"run_id": UUID}, answer=messages.SeriesList)
    async def series(self, request: web.Request) -> web.Response:
        """The series of a run, each with its summary."""
        run_id = _run_id(request.match_info["run_id"])
        await self._check([run_id])
        rows = await self._history.series(run_id)
        return await formats.respond({"series": [_series(row) for row in rows]}, "json")

    @describes(
        path={"run_id": UUID},
        query=messages.HistoryQuery,
        answer=messages.Columns,
        answer_types=(JSON, paths.MSGPACK, paths.ARROW),
    )
    async def one(self, request: web.Request) -> web.StreamResponse:
        """One metric: in full, as buckets, or as at most so many of its points."""
        query = _said(request, messages.HistoryQuery)
        wanted = _wanted(query | {"run_id": request.match_info["run_id"]})
        window = _window(query)
        await self._check([wanted.run_id])
        kind = formats.negotiate(request)
        size = _size(query)
        if kind == "arrow":
            return await formats.stream_arrow(request, self._arrow(wanted, window, size))
        answer = (await self._answers([wanted], window, size))[0]
        # What was asked for, as it was asked.
        return await formats.respond(answer | {"rank": query.get("rank"), "attempt": query.get("attempt")}, kind)

    @describes(body=messages.HistoryQuestion, answer=messages.HistoryAnswer, answer_types=COLUMNAR)
    async def many(self, request: web.Request) -> web.Response:
        """Metrics of several runs on one axis of steps."""
        body = await json_object(request)
        asked = body.get("series")
        if not isinstance(asked, list) or not asked or not all(isinstance(one, dict) for one in asked):
            raise _invalid('say which: {"series": [{"run_id": ..., "key": ...}, ...]}')
        if len(asked) > MAX_SERIES:
            raise _invalid(f"one question may name {MAX_SERIES} series, not {len(asked)}")
        wanted = [_wanted(one) for one in asked]
        await self._check([one.run_id for one in wanted])
        answers = await self._answers(wanted, _window(body), _size(body))
        for one, answer in zip(asked, answers, strict=True):
            answer |= {"run_id": str(one["run_id"]), "rank": one.get("rank"), "attempt": one.get("attempt")}
        return await formats.respond({"series": answers}, formats.negotiate(request))

    @describes(
        path={"run_id": UUID},
        query=messages.RanksQuery,
        answer=messages.RanksAnswer,
        answer_types=(JSON, paths.MSGPACK),
    )
    async def ranks(self, request: web.Request) -> web.Response:
        """One metric over all ranks of a run."""
        query = _said(request, messages.RanksQuery)
        wanted = _wanted(query | {"run_id": request.match_info["run_id"]})
        await self._check([wanted.run_id])
        size = _size(query)
        buckets = size[1] if size else DEFAULT_BUCKETS
        axis, lines = await self._history.buckets([wanted], _window(query), buckets, by_rank=True)
        found = [(one.rank, line) for one, line in lines if one.rank is not None and len(line)]
        answer: dict[str, Any] = {
            "key": wanted.key,
            "ranks_seen": [None if rank == NO_RANK else rank for rank, _ in found],
        }
        return await formats.respond(answer | asdict(await aside(over_ranks, axis, found)), formats.negotiate(request))

    async def _answers(
        self, wanted: list[Wanted], window: Window, size: tuple[str, int] | None
    ) -> list[dict[str, Any]]:
        if size is None:
            return [
                {"key": one.key, "count": len(points)} | _point_columns(points)
                for one, points in await self._in_full(wanted, window)
            ]
        name, count = size
        if name == "buckets":
            _, lines = await self._history.buckets(wanted, window, count)
            return [{"key": one.key, "count": _count(line)} | _bucket_columns(line) for one, line in lines]
        _, lines = await self._history.buckets(wanted, window, max(1, count // POINTS_PER_BUCKET))
        answers = []
        for one, line in lines:
            whole = _count(line)
            points = view.real_points(line) if whole > count else await self._history.points(one, window)
            answers.append({"key": one.key, "count": whole} | _point_columns(points))
        return answers

    async def _in_full(self, wanted: list[Wanted], window: Window) -> list[tuple[Wanted, Points]]:
        found = []
        total = 0
        for one in wanted:
            points = await self._history.points(one, window)
            total += len(points)
            if total > MAX_ANSWER_POINTS:
                message = (
                    f"together that is more than {MAX_ANSWER_POINTS} points: ask for buckets, for fewer series, or for "
                    "each as an Arrow stream of its own"
                )
                raise ApiError(413, "TOO_LARGE", message)
            found.append((one, points))
        return found

    async def _arrow(self, wanted: Wanted, window: Window, size: tuple[str, int] | None) -> AsyncGenerator[Columns]:
        if size is not None and size[0] == "buckets":
            _, lines = await self._history.buckets([wanted], window, size[1])
            yield _bucket_columns(lines[0][1])
            return
        if size is not None:
            answer = (await self._answers([wanted], window, size))[0]
            yield {name: answer[name] for name in ("steps", "times_ms", "values")}
            return
        # What is short is read at once, and waits for no turn; a series without points has a schema, too.
        points, whole = await self._history.part(wanted, window, 0, AT_ONCE_POINTS)
        if whole:
            yield _point_columns(points)
            return
        del points
        async with self._exports.turn(), aclosing(self._history.stream(wanted, window)) as pieces:
            async for points in pieces:
                yield _point_columns(points)

    async def _check(self, run_ids: list[UUID]) -> None:
        unknown = await self._history.unknown_runs(run_ids)
        if unknown:
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no run {min(unknown).hex}")


def _point_columns(points: Points) -> dict[str, Any]:
    return {"steps": points.steps, "times_ms": points.times_ms, "values": points.values}


def _bucket_columns(buckets: Buckets) -> dict[str, Any]:
    columns: dict[str, Any] = {name: buckets.int_column(name) for name in INTS if name != "count"}
    columns["counts"] = buckets.int_column("count")
    columns |= {name: buckets.float_column(name) for name in FLOATS}
    columns["mean"] = buckets.means
    return columns


def _count(buckets: Buckets) -> int:
    return int(buckets.int_column("count").sum())


def _series(row: Any) -> dict[str, Any]:
    attempt = Attempt.unpack(row["attempt"])
    return {
        "key": row["key"],
        "rank": row["rank"],
        "attempt": [attempt.scheduler, attempt.elastic, attempt.resume],
        "count": row["count"],
        "last": formats.number(row["last"]),
        "last_step": row["last_step"],
        "last_time_ms": row["last_time_ms"],
        "min": formats.number(row["min"]),
        "max": formats.number(math.nan if row["max"] is None else row["max"]),
    }


def _said(request: web.Request, kind: type[Struct]) -> dict[str, str]:
    """The query, which says nothing twice, and nothing that would be passed over."""
    query = dict(request.query)
    if len(query) != len(request.query):
        twice = next(name for name in query if len(request.query.getall(name)) > 1)
        raise _invalid(
            f"{twice!r:.60} is said twice: one question is about one series; POST {paths.HISTORY} takes many"
        )
    if unknown := query.keys() - set(kind.__struct_fields__):
        raise _invalid(f"there is no {min(unknown)!r:.60}; what can be said is {', '.join(kind.__struct_fields__)}")
    # A form that was not filled in; a rank of nothing is that of points without one.
    return {name: value for name, value in query.items() if value or name == "rank"}


def _wanted(asked: Mapping[str, Any]) -> Wanted:
    key = asked.get("key")
    if not key or not isinstance(key, str):
        raise _invalid("say which series: key=loss")
    rank = asked.get("rank")
    return Wanted(
        run_id=_run_id(asked.get("run_id")),
        key=key,
        rank=None if rank is None else NO_RANK if rank in ("", "none") else _int(rank, "rank", 32),
        attempt=_attempt(asked.get("attempt")),
    )


def _window(asked: Mapping[str, Any]) -> Window:
    return Window(
        start=_optional_int(asked.get("start_step"), "start_step"), end=_optional_int(asked.get("end_step"), "end_step")
    )


def _size(asked: Mapping[str, Any]) -> tuple[str, int] | None:
    """How much of an answer is wanted: (`buckets` or `points`, how many); None is all of it."""
    given = [(name, asked[name]) for name in ("buckets", "points") if asked.get(name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise _invalid("ask for buckets or for points, not for both")
    name, value = given[0]
    count = _int(value, name)
    most = MAX_BUCKETS * (POINTS_PER_BUCKET if name == "points" else 1)
    if not 1 <= count <= most:
        raise _invalid(f"{name} must lie between 1 and {most}, not {count}")
    return name, count


def _run_id(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise _invalid(f"a run id is 32 hex digits, not {str(value)[:60]!r}") from None


def _attempt(text: Any) -> int | None:
    if text is None:
        return None
    try:
        scheduler, elastic, resume = (int(part) for part in str(text).split("."))
        return Attempt(scheduler, elastic, resume).packed
    except ValueError:
        raise _invalid(f"an attempt is written scheduler.elastic.resume, for example 0.1.0, not {text!r:.40}") from None


def _optional_int(value: Any, name: str) -> int | None:
    return None if value is None else _int(value, name)


def _int(value: Any, name: str, bits: int = 64) -> int:
    text = str(value).strip()
    if not NUMBER.fullmatch(text):
        raise _invalid(f"{name} must be a whole number, not {value!r:.40}")
    most = 2 ** (bits - 1) - 1
    # More digits are not made a number, which would take time with their square.
    number = int(text) if len(text) <= DIGITS else most + 1
    if not -most - 1 <= number <= most:
        raise _invalid(f"{name} must fit int{bits}")
    return number


def _invalid(message: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)
