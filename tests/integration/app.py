"""One worker's application in this process, on a real database."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import numpy as np
from aiohttp.test_utils import TestClient, TestServer

from stepstream_ingest.app import create_app
from stepstream_ingest.artifacts.stores.root import parse
from stepstream_ingest.worker_config import WorkerConfig
from stepstream_schema import batch, paths
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Record, Start
from tests.integration.contract import Contract

RUN = "0123456789abcdef0123456789abcdef"
WRITER = 77


@asynccontextmanager
async def running(database_url: str, **settings: Any) -> AsyncIterator[TestClient]:
    """With `artifact_root`, artifacts go there; else to a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        root = settings.pop("artifact_root", None) or f"file://{directory}"
        config = WorkerConfig(dsn=database_url, artifact_root=parse(root), artifact_secret="5ec7e7" * 8, **settings)
        app, _ = create_app(config)
        contract = Contract()
        contract.add_to(app)
        async with TestClient(TestServer(app)) as client:
            yield client
        assert contract.broken == []


def frame(
    seq: int,
    *records: Record,
    run_id: str = RUN,
    writer: int = WRITER,
    rank: int | None = None,
    attempt: Attempt | None = None,
) -> bytes:
    return wire.encode(
        wire.Frame(
            run_id=run_id, writer=writer, seq=seq, rank=rank, attempt=attempt or Attempt(), records=tuple(records)
        )
    )


def metrics(values: dict[str, list[float]], first_step: int = 0, time_ms: int = 1000) -> Matrix:
    count = len(next(iter(values.values())))
    return Matrix(
        keys=tuple(values),
        steps=np.arange(first_step, first_step + count, dtype=np.int64),
        times_ms=np.full(count, time_ms, np.int64),
        values=np.array(list(values.values()), np.float64),
    )


def start(name: str = "first", experiment: str = "e", heartbeat_s: int = 0) -> Start:
    return Start(experiment=experiment, name=name, time_ms=5, user="me", heartbeat_s=heartbeat_s)


async def post(client: TestClient, *frames: bytes) -> dict[str, Any]:
    response = await client.post(paths.FRAMES, data=batch.pack(frames), headers={"Content-Type": "application/msgpack"})
    assert response.status == 200, await response.text()
    return await response.json()


async def get(client: TestClient, path: str, **query: Any) -> dict[str, Any]:
    response = await client.get(path, params={key: str(value) for key, value in query.items()})
    assert response.status == 200, await response.text()
    return await response.json()


async def fetch(database_url: str, sql: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


async def stored_points(database_url: str) -> int:
    return int((await fetch(database_url, "SELECT coalesce(sum(points), 0) AS n FROM frames"))[0]["n"])
