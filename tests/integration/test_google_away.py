"""Google's store that does not answer, or gives no token: said in seconds, and nothing else waits for it."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from stepstream_ingest.artifacts.stores import gcs
from stepstream_ingest.artifacts.stores.root import parse
from stepstream_ingest.artifacts.stores.store import StoreAway
from tests.integration.app import RUN, running
from tests.servers import free_port
from tests.stores import BUCKET

ROOT = f"gs://{BUCKET}/away"
THROUGH = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/a"


@pytest.fixture(autouse=True)
def credentials(google_environment, tmp_path, monkeypatch) -> Path:
    """Of an account whose tokens would come from where nobody listens; without the emulator tokens are needed."""
    monkeypatch.setattr(gcs, "RETRY_S", 0.5)
    path = tmp_path / "account.json"
    path.write_text(Path(google_environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    return path


async def said_of_an_upload(database_url: str) -> str:
    async with running(database_url, artifact_root=ROOT) as client, client.put(THROUGH, data=b"x") as response:
        said = await response.json()
        assert (response.status, said["error_code"]) == (503, "STORE_AWAY"), said
        return str(said["message"])


async def test_a_store_that_cannot_be_reached_is_away(database_url, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    assert "Connection refused" in await said_of_an_upload(database_url)


async def test_a_store_is_away_while_nobody_gives_a_token(database_url, credentials):
    assert "/token" in await said_of_an_upload(database_url)
    async with tokens() as url:
        said = json.loads(credentials.read_text()) | {"token_uri": url}
        credentials.write_text(json.dumps(said))
        assert "invalid_grant" in await said_of_an_upload(database_url)


async def test_a_store_that_is_silent_keeps_no_thread_of_others(monkeypatch):
    monkeypatch.setattr(gcs, "READ_S", 3.0)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        store = gcs.GcsStore(parse(ROOT), {})
        asked = [asyncio.create_task(store.seen("objects/ab/ab")) for _ in range(4)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(int)
        assert not any(one.done() for one in asked)
        for one in asked:
            with pytest.raises(StoreAway):
                await one
        await store.close()


@asynccontextmanager
async def tokens():
    """Where tokens would come from, and this account gets none."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, status=400)

    app = web.Application()
    app.router.add_post("/token", refuse)
    async with TestServer(app) as server:
        yield str(server.make_url("/token"))
