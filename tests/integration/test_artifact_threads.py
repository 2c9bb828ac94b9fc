"""What takes long with artifacts keeps no thread from what does not."""

import asyncio
import base64
import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepstream_ingest.app import STORE
from stepstream_ingest.artifacts.manifest import Manifest
from stepstream_ingest.artifacts.preview import Previews
from stepstream_ingest.artifacts.stores import directory
from stepstream_ingest.database import Database
from stepstream_schema import paths
from tests.integration.app import RUN, running

TREE = paths.run_artifacts(RUN)
THREADS = 3
"""Of the event loop, for this test."""


@pytest.fixture
async def client(database_url, tmp_path):
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    async with running(database_url, artifact_root=f"file://{tmp_path}") as client:
        yield client


async def put(client, path: str, body: bytes) -> None:
    said = {"path": path, "size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "logged_at_ms": 5}
    async with client.post(TREE + "/uploads", json={"files": [said]}) as response:
        (begun,) = (await response.json())["files"]
    async with client.put(begun["url"], data=body) as response:
        assert response.status == 200
    assert (await complete(client, {"upload_id": begun["upload_id"]}))["state"] == "stored"


def table(rows: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"n": range(rows)}), out)
    return out.getvalue()


async def test_as_many_tables_as_there_are_threads_are_shown_at_once(client):
    await put(client, "a.parquet", table(1000))

    async def show() -> int:
        async with client.get(TREE + "/preview", params={"path": "a.parquet"}) as response:
            return len((await response.json())["rows"])

    many = 3 * THREADS
    assert await asyncio.wait_for(asyncio.gather(*(show() for _ in range(many))), 30) == [100] * many


async def test_a_preview_that_nobody_waits_for_leaves_no_thread_behind(client, database_url, monkeypatch):
    await put(client, "a.parquet", table(1000))
    store, reached = client.app[STORE], asyncio.Event()
    read = store.read

    async def never(key, start=0, length=None):
        if start:
            reached.set()
            await asyncio.Event().wait()
        async for piece in read(key, start, length):
            yield piece

    monkeypatch.setattr(store, "read", never)
    database, previews = Database(database_url), Previews(store)
    file = await Manifest(database).file(UUID(RUN), "a.parquet")
    showing = asyncio.create_task(previews.of(file))
    await reached.wait()
    assert _of_previews()
    showing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await showing
    previews.close()
    for _ in range(1200):
        if not _of_previews():
            break
        await asyncio.sleep(0.05)
    assert not _of_previews()
    await database.close()


async def test_a_small_file_is_stored_while_many_large_ones_are_joined(client, monkeypatch):
    go_on, joining, most = threading.Event(), 0, 0
    lock, join = threading.Lock(), directory._join

    def slow(*said):
        nonlocal joining, most
        with lock:
            joining += 1
            most = max(most, joining)
        go_on.wait(60)
        with lock:
            joining -= 1
        return join(*said)

    monkeypatch.setattr(directory, "_join", slow)
    uploads = [await begin_parts(client, f"large/{number}", b"x" * 1000) for number in range(8)]
    completing = asyncio.gather(*(complete(client, {"upload_id": one, "size": 1000}) for one in uploads))
    try:
        while joining < directory.JOINED_AT_ONCE:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(put(client, "small", b"y"), 30)
    finally:
        go_on.set()
    assert {one["state"] for one in await completing} == {"stored"}
    assert most == directory.JOINED_AT_ONCE


async def begin_parts(client, path: str, body: bytes) -> str:
    """An upload in one part, which has been sent."""
    said = {"files": [{"path": path, "logged_at_ms": 5}]}
    async with client.post(TREE + "/uploads", json=said) as response:
        (begun,) = (await response.json())["files"]
    checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
    part = {"number": 1, "size": len(body), "checksum": checksum}
    async with client.post(paths.upload(begun["upload_id"]) + "/parts", json={"parts": [part]}) as response:
        (signed,) = (await response.json())["parts"]
    async with client.put(signed["url"], data=body) as response:
        assert response.status == 200
    return str(begun["upload_id"])


async def complete(client, sent: dict) -> dict:
    async with client.post(paths.UPLOADS + "/complete", json={"uploads": [sent]}) as response:
        (done,) = (await response.json())["files"]
        return dict(done)


def _of_previews() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stepstream-preview")]
