"""The aiohttp application of one worker."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from aiohttp import web

from stepstream_ingest import auth, hosts, operations, refusals
from stepstream_ingest.admission import Admission
from stepstream_ingest.api.service import add_api
from stepstream_ingest.artifacts.collect import Collector
from stepstream_ingest.artifacts.manifest import Manifest
from stepstream_ingest.artifacts.preview import Previews
from stepstream_ingest.artifacts.routes import ArtifactRoutes
from stepstream_ingest.artifacts.serve import StoreRoutes
from stepstream_ingest.artifacts.stores.directory import DirectoryStore
from stepstream_ingest.artifacts.stores.open import open_store
from stepstream_ingest.artifacts.stores.store import Store
from stepstream_ingest.artifacts.uploads import Uploads
from stepstream_ingest.background import for_ever
from stepstream_ingest.bodies import ROOM
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.database import Database
from stepstream_ingest.drain import Drain
from stepstream_ingest.hearing import Hearing
from stepstream_ingest.logs import Logs
from stepstream_ingest.mlflow.artifacts import MlflowArtifactRoutes
from stepstream_ingest.mlflow.browser import BrowserRoutes
from stepstream_ingest.mlflow.service import add_mlflow
from stepstream_ingest.origin import Origins
from stepstream_ingest.read.exports import Exports
from stepstream_ingest.read.history import History
from stepstream_ingest.read.routes import ReadRoutes
from stepstream_ingest.readiness import Readiness
from stepstream_ingest.reaper import Reaper
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.retention.store import Retention
from stepstream_ingest.slices import Slices
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.heartbeats import Heartbeats
from stepstream_ingest.tracking.models import LoggedModels
from stepstream_ingest.tracking.runs import Runs
from stepstream_ingest.worker_config import WorkerConfig
from stepstream_ingest.write.append import Appender
from stepstream_ingest.write.commit import Committer
from stepstream_ingest.write.queue import CommitQueue
from stepstream_ingest.write.routes import FrameRoutes
from stepstream_ingest.write.served import Served
from stepstream_schema import limits

VERSION: Final = "0.1.0"
STORE: Final = web.AppKey("store", Store)
HEARING: Final = web.AppKey("hearing", Hearing)
AGE_S: Final = 3600.0
"""Days are what is promised; an hour late is on time. Each run of an experiment whose points age is looked at."""
READER_SHARE: Final = 3
"""One of so many connections is for readers."""


def create_app(config: WorkerConfig) -> tuple[web.Application, Drain]:
    """The application, and the switch that drains it."""
    # Readers have connections of their own: a slow one must not keep a commit waiting.
    reading = max(1, config.connections // READER_SHARE)
    database = Database(config.dsn, max_connections=config.connections - reading)
    readers = Database(config.dsn, max_connections=reading)
    drain = Drain()
    queue, appends = CommitQueue(Committer(database)), CommitQueue(Appender(database))
    app = web.Application(
        middlewares=[
            refusals.middleware,
            drain.middleware(),
            hosts.middleware(config.allowed_hosts),
            auth.middleware([config.token, *config.old_tokens] if config.token else []),
        ],
        client_max_size=limits.MAX_REQUEST_BYTES,
    )
    admission = Admission(max_bytes=config.queue_bytes, max_requests=config.queue_requests)
    app[ROOM] = Admission(max_bytes=config.queue_bytes, max_requests=config.queue_requests)
    compaction = Compaction(database)
    hearing = Hearing(Path(config.tally).with_name("unheard") if config.tally else None)
    app[HEARING] = hearing
    reaper = Reaper(Heartbeats(database), hearing, config.heartbeat_timeout_s)
    FrameRoutes(queue, admission, compaction.delay_s, hearing.interrupted).add_to(app)
    # An export holds its connection for as long as its reader takes. Others have one more, from six of a worker on.
    ReadRoutes(History(readers), Exports(max(1, reading - 1))).add_to(app)
    retention = Retention(database)
    store = open_store(config.artifact_root, bytes.fromhex(config.artifact_secret), os.environ)
    manifest = Manifest(database)
    registry = Registry(database)
    previews = Previews(store)
    uploads = _add_artifacts(app, database, store, manifest, previews)
    BrowserRoutes(manifest, uploads, registry).add_to(app)
    experiments, models, runs = Experiments(database), LoggedModels(database), Runs(database, readers)
    slices = Slices(
        experiments=experiments,
        runs=runs,
        models=models,
        registry=registry,
        origins=Origins(registry, runs, models, experiments),
        history=History(readers),
        logs=Logs(runs, Served(appends=appends, commits=queue, admission=admission, delay_s=compaction.delay_s)),
        retention=retention,
        manifest=manifest,
    )
    add_mlflow(app, slices)
    add_api(app, slices, VERSION)
    operations.add_to(app, Readiness(config.dsn, drain), VERSION)

    async def run(_: web.Application) -> AsyncIterator[None]:
        queue.start()
        appends.start()
        work = [for_ever("silent runs are not looked for", reaper.look, reaper.pause_s)]
        if config.compaction:
            work += [compaction.run(), for_ever("what is too old is not looked for", retention.age, AGE_S)]
        background = [asyncio.create_task(one) for one in work]
        yield
        for task in background:
            task.cancel()
        # A pass that is cut short is rolled back whole.
        await asyncio.gather(*background, return_exceptions=True)
        await queue.stop()
        await appends.stop()
        await uploads.close()
        await database.close()
        await readers.close()
        previews.close()
        await store.close()
        hearing.close()

    app.cleanup_ctx.append(run)
    return app, drain


def _add_artifacts(
    app: web.Application, database: Database, store: Store, manifest: Manifest, previews: Previews
) -> Uploads:
    uploads = Uploads(database, manifest, store)
    app[STORE] = store
    MlflowArtifactRoutes(manifest, uploads).add_to(app)
    ArtifactRoutes(manifest, uploads, previews, Collector(database, store)).add_to(app)
    if isinstance(store, DirectoryStore):
        StoreRoutes(store).add_to(app)
    return uploads
