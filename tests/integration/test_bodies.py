"""However a body comes, it is read whole, or refused by its size."""

import asyncio
import gzip
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from stepstream_ingest import bodies
from stepstream_ingest.mlflow.router import MAX_BATCH_BYTES
from stepstream_schema import limits
from tests.integration.app import running

URL = "/api/2.0/mlflow/runs/log-batch"
JSON = {"Content-Type": "application/json"}


def a_batch(run_id: str) -> bytes:
    metrics = [{"key": f"m{n % 100}", "value": n / 7, "timestamp": 5, "step": n // 100} for n in range(1000)]
    return json.dumps({"run_id": run_id, "metrics": metrics}).encode()


async def in_pieces(body: bytes, size: int = 20_000):
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(0.001)


async def new_run(client) -> str:
    async with client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}) as response:
        return (await response.json())["run"]["info"]["run_id"]


async def points(client, run_id: str) -> int:
    async with client.get(f"/v1/runs/{run_id}/metrics") as response:
        return sum(one["count"] for one in (await response.json())["series"])


@pytest.mark.parametrize("way", ["at once", "in pieces", "chunked", "chunked and compressed", "compressed"])
async def test_a_body_is_read_whole(database_url, way):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        body = a_batch(run_id)
        sent, headers = {
            "at once": (body, {}),
            "in pieces": (in_pieces(body), {"Content-Length": str(len(body))}),
            "chunked": (in_pieces(body), {}),
            "chunked and compressed": (in_pieces(gzip.compress(body)), {"Content-Encoding": "gzip"}),
            "compressed": (gzip.compress(body), {"Content-Encoding": "gzip"}),
        }[way]
        async with client.post(URL, data=sent, headers=JSON | headers) as response:
            assert response.status == 200, await response.text()
        assert await points(client, run_id) == 1000


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_body_that_was_read_before_is_not_taken_for_an_empty_one(pieces):
    async def twice(request: web.Request) -> web.Response:
        first = await bodies.read(request)
        with pytest.raises(RuntimeError, match="read before"):
            await bodies.read(request)
        return web.Response(body=first)

    app = web.Application()
    app.router.add_post("/", twice)
    async with TestClient(TestServer(app)) as client:
        sent = {"data": in_pieces(b"x" * 3000, 3000 // pieces), "headers": {"Content-Length": "3000"}}
        async with client.post("/", **sent) as response:
            assert await response.read() == b"x" * 3000


async def test_nothing_is_stored_of_a_body_that_breaks_off(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        body = a_batch(run_id)
        head = f"POST {URL} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(head.encode() + b"\r\n\r\n" + body[:-1])
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
        assert await points(client, run_id) == 0
        async with client.post(URL, data=body, headers=JSON) as response:
            assert response.status == 200
        assert await points(client, run_id) == 1000


async def begun(client, path: str, head: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of which no more comes than this."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n\r\n".encode() + body
    )
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize(
    "path", [URL, "/v1/history", "/v1/artifacts/uploads/complete", "/api/2.0/mlflow-artifacts/mpu/abort"]
)
async def test_large_bodies_that_do_not_come_keep_no_small_one_waiting_and_give_their_room_back(
    database_url, later, path
):
    large = bodies.SMALL_BYTES + 1
    async with running(database_url, compaction=False, queue_bytes=3 * large) as client:
        run_id = await new_run(client)
        waiting = [await begun(client, path, f"Content-Length: {large}", b"{") for _ in range(3)]
        await asyncio.sleep(0.2)
        # One that does not say its length, as one that is compressed, is let in as far as a small one goes.
        said, compressed = json.dumps({"a": " " * large}).encode(), {"Content-Encoding": "gzip"}
        for sent, headers in [(said, {}), (in_pieces(said), {}), (gzip.compress(said), compressed)]:
            async with client.post(path, data=sent, headers=JSON | headers) as response:
                assert (response.status, (await response.json())["error_code"]) == (429, "QUEUE_FULL")
                assert int(response.headers["Retry-After"]) > 0
        for sent, headers in [(in_pieces(b"{}"), {}), (gzip.compress(b"{}"), compressed)]:
            async with client.post(path, data=sent, headers=JSON | headers) as response:
                assert response.status in (200, 400, 404), await response.text()
        small = {"run_id": run_id, "metrics": [{"key": "m", "value": 1.0, "timestamp": 5, "step": 0}]}
        async with client.post(URL, json=small) as response:
            assert response.status == 200
        later(bodies.BODY_TIMEOUT_S)
        for reader, writer in waiting:
            assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 408")
            writer.close()
        async with client.post(URL, data=a_batch(run_id), headers=JSON) as response:
            assert response.status == 200
        assert await points(client, run_id) == 1001


async def test_a_body_of_unstated_length_takes_room_for_what_has_come_of_it_alone(database_url):
    large = bodies.SMALL_BYTES + 1
    async with running(database_url, compaction=False, queue_bytes=8 * large) as client:
        run_id = await new_run(client)
        chunk = b"10001\r\n" + b" " * 0x10001 + b"\r\n"
        assert len(chunk) > large
        waiting = [await begun(client, URL, "Transfer-Encoding: chunked", chunk) for _ in range(3)]
        await asyncio.sleep(0.2)
        for sent in (a_batch(run_id), in_pieces(a_batch(run_id))):
            async with client.post(URL, data=sent, headers=JSON) as response:
                assert response.status == 200, await response.text()
        # One that grows beyond what is left is turned away, and gives back what it had.
        for _ in range(2):
            async with client.post(URL, data=in_pieces(b" " * 8 * large), headers=JSON) as response:
                assert (response.status, (await response.json())["error_code"]) == (429, "QUEUE_FULL")
        for _, writer in waiting:
            writer.close()
        room = client.app[bodies.ROOM]
        while room.requests:
            await asyncio.sleep(0.01)
        assert room.bytes == 0


async def test_a_batch_of_very_many_bytes_is_read_only_as_clients_write_it(database_url):
    """Any other would be made objects of, which take thirty times its bytes."""
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        for wrong in ({"x": [[]] * 10**6}, {"metrics": [{"key": "a", "value": "1", "timestamp": "5"}]}):
            body = json.dumps({"run_id": run_id} | wrong).encode() + b" " * limits.MAX_REQUEST_BYTES
            async with client.post(URL, data=body, headers=JSON) as response:
                assert response.status == 400
                assert "only as MLflow's client writes it" in (await response.json())["message"]
        assert await points(client, run_id) == 0


@pytest.mark.parametrize("way", ["stated", "chunked", "compressed"])
async def test_a_body_beyond_the_bound_is_refused(database_url, way):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        body = a_batch(run_id) + b" " * MAX_BATCH_BYTES
        sent, headers = {
            "stated": (body, {}),
            "chunked": (in_pieces(body, 2**20), {}),
            "compressed": (gzip.compress(body, 1), {"Content-Encoding": "gzip"}),
        }[way]
        async with client.post(URL, data=sent, headers=JSON | headers) as response:
            assert response.status == 413
            said = await response.json()
            assert said["error_code"] == "TOO_LARGE"
            assert f"at most {MAX_BATCH_BYTES} bytes" in said["message"]
        assert await points(client, run_id) == 0
        # Bodies that no client of MLflow's sends are smaller.
        async with client.post("/v1/runs", data=b" " * (limits.MAX_REQUEST_BYTES + 1), headers=JSON) as response:
            assert response.status == 413


async def test_a_batch_of_very_long_values_is_cut_and_taken(database_url):
    """MLflow's clients send them as they are, and escape what is no ASCII."""
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        params = [{"key": f"p{n}", "value": "\N{ROCKET}" * 6000} for n in range(100)]
        tags = [{"key": f"t{n}", "value": "\N{ROCKET}" * 9000} for n in range(100)]
        metrics = json.loads(a_batch(run_id))["metrics"][:800]
        body = json.dumps({"run_id": run_id, "metrics": metrics, "params": params, "tags": tags}).encode()
        assert len(body) > limits.MAX_REQUEST_BYTES
        async with client.post(URL, data=body, headers=JSON) as response:
            assert response.status == 200, await response.text()
        async with client.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id}) as response:
            data = (await response.json())["run"]["data"]
        assert {len(one["value"]) for one in data["params"]} == {6000}
        assert [len(one["value"]) for one in data["tags"] if one["key"].startswith("t")] == [8000] * 100
        assert await points(client, run_id) == 800
