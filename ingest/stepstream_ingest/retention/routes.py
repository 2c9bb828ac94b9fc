"""Age and deletion over HTTP."""

from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

import orjson
from aiohttp import web

from stepstream_ingest.errors import ApiError
from stepstream_ingest.retention.store import Retention
from stepstream_schema import paths

STEP_S: Final = 1.0
"""One request collects for about so long: whoever asks can show how far it is."""
MAX_DAYS: Final = 36_500


class RetentionRoutes:
    """Deletes, restores, collects."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_delete(paths.run("{run_id}"), self.delete)
        app.router.add_post(paths.run("{run_id}") + "/restore", self.restore)
        app.router.add_put(paths.EXPERIMENTS + "/{experiment_id}/retention", self.set)
        app.router.add_post(paths.GC, self.collect)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a run; it can be restored until the garbage is collected."""
        return _json(await self._retention.delete(_run_id(request)))

    async def restore(self, request: web.Request) -> web.Response:
        """Restore a deleted run."""
        return _json(await self._retention.restore(_run_id(request)))

    async def set(self, request: web.Request) -> web.Response:
        """Say how long an experiment keeps raw points (keep_raw_days) and ended runs (keep_days); null is for ever."""
        body = await _body(request)
        unknown = body.keys() - {"keep_raw_days", "keep_days"}
        if unknown:
            raise _invalid(f"say keep_raw_days and keep_days, not {', '.join(sorted(unknown))}")
        try:
            experiment_id = int(request.match_info["experiment_id"])
        except ValueError:
            raise _invalid(f"an experiment's id is a number, not {request.match_info['experiment_id']!r}") from None
        return _json(
            await self._retention.set(
                experiment_id, _days(body, "keep_raw_days", least=1), _days(body, "keep_days", least=1)
            )
        )

    async def collect(self, request: web.Request) -> web.Response:
        """Remove deleted runs for a second, or say what there is to remove (dry_run)."""
        body = await _body(request)
        older_than = _days(body, "older_than_days", least=0) or 0
        if body.get("dry_run"):
            return _json(await self._retention.garbage(older_than))
        return _json(asdict(await self._retention.collect(older_than, STEP_S)))


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read() or b"{}")
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "MALFORMED", f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "MALFORMED", "the body is not a JSON object")
    return body


def _run_id(request: web.Request) -> UUID:
    text = request.match_info["run_id"]
    try:
        return UUID(text)
    except ValueError:
        raise _invalid(f"a run id is 32 hex digits, not {text[:60]!r}") from None


def _days(body: dict[str, Any], name: str, least: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= MAX_DAYS:
        raise _invalid(f"{name} is a whole number of days from {least} to {MAX_DAYS}, or null, not {value!r:.40}")
    return value


def _invalid(message: str) -> ApiError:
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def _json(said: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(said), content_type="application/json")
