"""What whoever runs a server asks it: is it alive, may it be sent requests, which version is it, what was counted."""

from aiohttp import web

from stepstream_ingest import telemetry
from stepstream_ingest.readiness import Readiness
from stepstream_schema import limits, paths


def add_to(app: web.Application, readiness: Readiness, version: str) -> None:
    """Register the routes."""

    async def health(_: web.Request) -> web.Response:
        # Of this process alone: nobody should restart a server because its database is away.
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        problem = await readiness.problem()
        if problem is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": problem.status, "message": problem.message}, status=503)

    async def versions(_: web.Request) -> web.Response:
        return web.json_response({"version": version, "frame_version": limits.FRAME_VERSION})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app.router.add_get(paths.HEALTH, health)
    app.router.add_get(paths.READY, ready)
    app.router.add_get(paths.VERSION, versions)
    app.router.add_get(paths.METRICS, metrics)
