"""Bodies that come through the server, of which no more comes."""

import asyncio
import time

from stepstream_ingest.artifacts import carried, uploads
from stepstream_schema import paths
from tests.integration.app import RUN, fetch, running

WHERE = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/"
LARGE = carried.SMALL_BYTES + 1


async def begun(client, path: str, size: int, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of which no more comes than this."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


async def test_bodies_that_fall_silent_keep_no_large_one_waiting(database_url, tmp_path, monkeypatch):
    monkeypatch.setattr(carried, "SILENCE_S", 1.0)
    async with running(database_url, artifact_root=f"file://{tmp_path}") as client:
        silent = [await begun(client, f"{WHERE}a{n}", 2 * LARGE, bytes(LARGE)) for n in range(uploads.CARRIED_AT_ONCE)]
        silent.append(await begun(client, f"{WHERE}small", 1000, b"x"))
        await asyncio.sleep(0.2)
        async with client.put(f"{WHERE}large", data=bytes(LARGE)) as response:
            assert response.status == 200
        for reader, writer in silent:
            assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 408")
            writer.close()
    assert [row["path"] for row in await fetch(database_url, "SELECT path FROM artifacts")] == ["large"]


async def test_a_body_that_comes_slowly_is_waited_for(database_url, monkeypatch):
    monkeypatch.setattr(carried, "SILENCE_S", 3.0)

    async def slowly():
        for _ in range(6):
            yield bytes(LARGE)
            await asyncio.sleep(0.6)

    began = time.monotonic()
    async with running(database_url) as client, client.put(f"{WHERE}a", data=slowly()) as response:
        assert response.status == 200
    assert time.monotonic() - began > carried.SILENCE_S


async def test_a_body_that_comes_byte_by_byte_is_not_waited_for(database_url, monkeypatch):
    monkeypatch.setattr(carried, "SILENCE_S", 1.0)
    async with running(database_url) as client:
        reader, writer = await begun(client, f"{WHERE}a", 2 * LARGE, bytes(LARGE))
        answered = asyncio.create_task(reader.readline())
        while not answered.done():
            writer.write(b"x")
            await asyncio.wait([answered], timeout=0.1)
        assert (await answered).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_signed_upload_to_the_embedded_store_that_falls_silent_is_ended(database_url, tmp_path, monkeypatch):
    monkeypatch.setattr(carried, "SILENCE_S", 0.5)
    said = {"path": "a", "size": 1000, "sha256": "0" * 64, "logged_at_ms": 5}
    async with running(database_url, artifact_root=f"file://{tmp_path}") as client:
        async with client.post(paths.run_artifacts(RUN) + "/uploads", json={"files": [said]}) as response:
            (file,) = (await response.json())["files"]
        reader, writer = await begun(client, file["url"], 1000, b"x")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 408")
        writer.close()
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
