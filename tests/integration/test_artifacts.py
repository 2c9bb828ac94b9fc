"""One suite for every object store, through the server's API and with a plain HTTP client."""

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from yarl import URL

from stepstream.artifacts.source import digest
from stepstream_ingest.app import STORE
from stepstream_ingest.artifacts.manifest import Entry, Manifest
from stepstream_ingest.artifacts.stores.store import ObjectGone, object_key
from stepstream_ingest.artifacts.uploads import Uploads
from stepstream_ingest.database import Database
from stepstream_schema import limits, paths
from tests.integration.app import RUN, fetch, running
from tests.stores import BUCKET

TREE = paths.run_artifacts(RUN)
OTHER = "f" * 32
PART = limits.PART_BYTES
THROUGH = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/"


@dataclass
class Bench:
    """A server on one store, and a client that knows neither."""

    kind: str
    client: TestClient
    http: aiohttp.ClientSession
    database_url: str

    async def call(self, method: str, path: str, status: int = 200, **said: Any) -> dict[str, Any]:
        async with self.client.request(method, path, **said) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def send(self, request: dict[str, Any], body: bytes, **headers: str) -> int:
        url = URL(request["url"], encoded=True)
        if not url.absolute:
            url = self.client.make_url("/").join(url)
        sent = request["headers"] | headers
        async with self.http.request(request["method"], url, data=body, headers=sent) as response:
            await response.read()
            return response.status

    async def fetch(self, request: dict[str, Any], **headers: str) -> tuple[int, bytes, Any]:
        url = URL(request["url"], encoded=True)
        url = url if url.absolute else self.client.make_url("/").join(url)
        async with self.http.get(url, headers=request["headers"] | headers) as response:
            return response.status, await response.read(), response.headers

    async def begin(self, *files: dict[str, Any], run: str = RUN, rank: int | None = None) -> list[dict[str, Any]]:
        body = {"files": list(files), "rank": rank}
        return (await self.call("POST", paths.run_artifacts(run) + "/uploads", json=body))["files"]

    async def complete(self, *uploads: dict[str, Any]) -> list[dict[str, Any]]:
        return (await self.call("POST", paths.UPLOADS + "/complete", json={"uploads": list(uploads)}))["files"]

    async def put(self, path: str, body: bytes, run: str = RUN, **said: Any) -> dict[str, Any]:
        (begun,) = await self.begin(announced(path, body, **said), run=run)
        if begun["state"] == "put":
            assert await self.send(begun, body) < 300
            (done,) = await self.complete({"upload_id": begun["upload_id"]})
            assert done["state"] == "stored", done
        return begun

    async def parts(self, begun: dict[str, Any], body: bytes, *numbers: int) -> None:
        sums = checksums(begun, body)
        wanted = [{"number": n, "size": len(body[(n - 1) * PART : n * PART]), "checksum": sums[n - 1]} for n in numbers]
        signed = await self.call("POST", paths.upload(begun["upload_id"]) + "/parts", json={"parts": wanted})
        for part in signed["parts"]:
            assert await self.send(part, body[(part["number"] - 1) * PART : part["number"] * PART]) < 300

    async def list(self, run: str = RUN, **query: Any) -> list[dict[str, Any]]:
        return (await self.call("GET", paths.run_artifacts(run), params=query))["files"]

    async def get(self, path: str, run: str = RUN) -> dict[str, Any]:
        said = await self.call("POST", paths.run_artifacts(run) + "/urls", json={"paths": [path]})
        return said["files"][0]

    async def content(self, path: str, run: str = RUN) -> bytes:
        status, body, _ = await self.fetch(await self.get(path, run))
        assert status == 200
        return body


def checksums(begun: dict[str, Any], body: bytes) -> list[str]:
    pieces = [body[at : at + PART] for at in range(0, len(body), PART)]
    return [digest(begun["checksum"], [piece]) for piece in pieces]


def announced(path: str, body: bytes | None, **said: Any) -> dict[str, Any]:
    file: dict[str, Any] = {"path": path, "logged_at_ms": said.pop("logged_at_ms", time.time_ns() // 10**6)}
    if body is not None:
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        file |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "md5": md5}
    return file | said


@pytest.fixture(params=["directory", "s3", "azure", "google"])
async def bench(
    request: pytest.FixtureRequest, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    kind = request.param
    root = None
    if kind != "directory":
        for name, value in request.getfixturevalue(f"{kind}_environment").items():
            monkeypatch.setenv(name, value)
        scheme = {"s3": "s3", "azure": "azure", "google": "gs"}[kind]
        root = f"{scheme}://{BUCKET}/prefix-{os.urandom(4).hex()}"
    async with running(database_url, artifact_root=root) as client, aiohttp.ClientSession() as http:
        yield Bench(kind, client, http, database_url)


def noise(size: int) -> bytes:
    return os.urandom(size)


async def test_a_file_that_was_sent_is_listed_and_comes_back(bench):
    body = noise(100_000)
    await bench.put("model/weights.bin", body, content_type="application/x-weights")
    (directory,) = await bench.list()
    assert (directory["path"], directory["is_dir"], directory["size"], directory["files"]) == (
        "model",
        True,
        100_000,
        1,
    )
    (file,) = await bench.list(path="model")
    assert (file["path"], file["size"], file["is_dir"]) == ("model/weights.bin", len(body), False)
    assert (file["content_type"], file["sha256"]) == ("application/x-weights", hashlib.sha256(body).hexdigest())
    assert await bench.content("model/weights.bin") == body


async def test_an_empty_file_is_a_file(bench):
    if bench.kind == "google":
        pytest.skip("the emulator hangs up on an empty body")
    await bench.put("empty", b"")
    assert await bench.content("empty") == b""


async def test_nothing_is_listed_before_its_bytes_are_there(bench):
    body = noise(1000)
    (begun,) = await bench.begin(announced("a", body))
    assert await bench.list() == []
    (early,) = await bench.complete({"upload_id": begun["upload_id"]})
    assert (early["state"], early["code"]) == ("refused", "PARTS_MISSING")
    assert await bench.list() == []
    assert await bench.send(begun, body) < 300
    (done,) = await bench.complete({"upload_id": begun["upload_id"]})
    assert done["state"] == "stored"
    assert [file["path"] for file in await bench.list()] == ["a"]


async def test_the_same_bytes_are_sent_once(bench):
    body = noise(5000)
    assert (await bench.put("a", body))["state"] == "put"
    assert (await bench.put("b/c", body))["state"] == "stored"
    assert (await bench.put("d", body, run=OTHER))["state"] == "stored"
    assert await bench.content("b/c") == body == await bench.content("d", OTHER)
    assert len(await fetch(bench.database_url, "SELECT FROM objects")) == 1


async def test_twins_that_arrive_together_leave_one_object(bench):
    body = noise(5000)
    (one,) = await bench.begin(announced("one", body))
    (two,) = await bench.begin(announced("two", body))
    for begun in (one, two):
        assert await bench.send(begun, body) < 300
        (done,) = await bench.complete({"upload_id": begun["upload_id"]})
        assert done["state"] == "stored"
    assert await bench.content("one") == body == await bench.content("two")
    assert len(await fetch(bench.database_url, "SELECT FROM objects")) == 1
    assert await everything(bench) == 1


async def test_a_late_delivery_does_not_replace_a_newer_file(bench):
    await bench.put("log", b"new", logged_at_ms=2000)
    await bench.put("log", b"old", logged_at_ms=1000)
    assert await bench.content("log") == b"new"
    await bench.put("log", b"newest", logged_at_ms=3000)
    assert await bench.content("log") == b"newest"


async def test_a_file_whose_upload_was_interrupted_is_listed_as_logged_last_when_it_is_logged_again(bench):
    """Also when the one that was interrupted is completed only after that."""
    body = noise(2 * PART + 5)
    (begun,) = await bench.begin(announced("big", body, logged_at_ms=1000, content_type="text/old"), rank=1)
    await bench.parts(begun, body, 1)
    await bench.put("big", b"between", logged_at_ms=2000)
    again = announced("big", body, logged_at_ms=3000, content_type="text/new")
    assert (await bench.begin(again, rank=2))[0]["upload_id"] == begun["upload_id"]
    await bench.begin(announced("big", body, logged_at_ms=500, content_type="text/older"), rank=0)
    await bench.parts(begun, body, 2, 3)
    (done,) = await bench.complete({"upload_id": begun["upload_id"], "checksums": checksums(begun, body)})
    assert done["state"] == "stored", done
    (file,) = await bench.list()
    said = (file["size"], file["logged_at_ms"], file["content_type"], file["rank"])
    assert said == (len(body), 3000, "text/new", 2)


async def test_a_file_that_is_logged_again_while_its_upload_is_completed_is_listed_as_logged_last(bench, monkeypatch):
    body = noise(2 * PART + 5)
    (begun,) = await bench.begin(announced("big", body, logged_at_ms=1000))
    await bench.parts(begun, body, 1, 2, 3)
    joining, go_on = held_back(monkeypatch, bench.client.app[STORE], "complete_parts")
    said = {"upload_id": begun["upload_id"], "checksums": checksums(begun, body)}
    completing = asyncio.create_task(bench.complete(said))
    await joining.wait()
    await bench.put("big", b"between", logged_at_ms=2000)
    (again,) = await bench.begin(announced("big", body, logged_at_ms=3000))
    go_on.set()
    assert again["upload_id"] == begun["upload_id"]
    for (done,) in (await completing, await bench.complete(said)):
        assert done["state"] == "stored", done
    assert [(file["size"], file["logged_at_ms"]) for file in await bench.list()] == [(len(body), 3000)]


async def test_a_large_file_goes_in_parts_and_an_interrupted_one_resumes(bench):
    body = noise(2 * PART + 12_345_678)
    (begun,) = await bench.begin(announced("big", body))
    assert (begun["state"], begun["part_bytes"], begun["have"]) == ("parts", PART, [])
    await bench.parts(begun, body, 2)
    (early,) = await bench.complete({"upload_id": begun["upload_id"]})
    assert early["code"] == "PARTS_MISSING"
    assert "1, 3" in early["message"]
    (again,) = await bench.begin(announced("big", body))
    assert again["upload_id"] == begun["upload_id"]
    assert [(part["number"], part["size"]) for part in again["have"]] == [(2, PART)]
    await bench.parts(again, body, 3, 1)
    sums = checksums(begun, body)
    (done,) = await bench.complete({"upload_id": begun["upload_id"], "checksums": sums})
    assert done["state"] == "stored", done
    assert await bench.content("big") == body
    (stored,) = await bench.begin(announced("copy", body))
    assert stored["state"] == "stored"


async def test_a_file_of_unknown_length_is_told_at_the_end(bench):
    body = noise(PART + 1000)
    (begun,) = await bench.begin(announced("stream", None))
    assert begun["state"] == "parts"
    await bench.parts(begun, body, 1, 2)
    said = {"upload_id": begun["upload_id"], "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    said |= {"checksums": checksums(begun, body)}
    (done,) = await bench.complete(said)
    assert done["state"] == "stored", done
    assert await bench.content("stream") == body


async def test_ranges_can_be_fetched(bench):
    body = noise(10_000)
    await bench.put("a", body)
    status, part, _ = await bench.fetch(await bench.get("a"), Range="bytes=100-199")
    if bench.kind == "google":
        assert part in (body, body[100:200])
    else:
        assert (status, part) == (206, body[100:200])


async def test_other_bytes_than_were_announced_are_refused(bench):
    body, other = noise(1000), noise(1000)
    (begun,) = await bench.begin(announced("a", body))
    status = await bench.send(begun, other)
    if bench.kind != "google":
        assert status >= 400
    (done,) = await bench.complete({"upload_id": begun["upload_id"]})
    assert done["state"] == "refused"
    assert await bench.list() == []


async def test_more_bytes_than_were_announced_are_refused(bench):
    body = noise(1000)
    (begun,) = await bench.begin(announced("a", body))
    await bench.send(begun, body + b"!")
    (done,) = await bench.complete({"upload_id": begun["upload_id"]})
    assert done["state"] == "refused"
    assert await bench.list() == []


async def test_an_altered_url_is_refused(bench):
    if bench.kind == "google":
        pytest.skip("the emulator takes any signature; test_artifact_signatures checks it against the public key")
    body = noise(1000)
    (begun,) = await bench.begin(announced("a", body))
    parts = urlsplit(begun["url"])
    key = parts.path.rpartition("/")[2]
    moved = begun | {"url": begun["url"].replace(key, OTHER)}
    assert await bench.send(moved, body) in (400, 401, 403)
    query = [(name, _altered(name, value)) for name, value in parse_qsl(parts.query)]
    altered = begun | {"url": parts._replace(query=urlencode(query)).geturl()}
    assert await bench.send(altered, body) in (400, 401, 403)
    await bench.put("a", body)
    get = await bench.get("a")
    wrong = get | {"url": get["url"].replace(urlsplit(get["url"]).path.rpartition("/")[2], key)}
    assert (await bench.fetch(wrong))[0] in (400, 401, 403, 404)


async def test_an_expired_url_is_refused(bench, monkeypatch):
    if bench.kind == "google":
        pytest.skip("the emulator does not look at the time")
    for module in ("directory", "s3", "azure"):
        monkeypatch.setattr(f"stepstream_ingest.artifacts.stores.{module}.SIGNED_FOR_S", 1)
    body = noise(1000)
    (begun,) = await bench.begin(announced("a", body))
    await asyncio.sleep(2.5)
    assert await bench.send(begun, body) in (400, 401, 403)
    assert await everything(bench) == 0


async def test_a_hostile_page_is_handed_out_as_bytes_to_save(bench):
    await bench.put("x/<script>.html", b"<script>alert(1)</script>", content_type="text/html")
    status, body, headers = await bench.fetch(await bench.get("x/<script>.html"))
    assert (status, body) == (200, b"<script>alert(1)</script>")
    if bench.kind != "google":
        assert headers["Content-Disposition"].startswith("attachment")
        assert "html" not in headers["Content-Type"]


async def test_a_removed_tree_is_gone_and_its_neighbours_stay(bench):
    for path in ("model/a", "model/b/c", "model2", "modelx/y"):
        await bench.put(path, path.encode())
    assert await bench.call("DELETE", TREE, params={"path": "model"}) == {"removed": 2}
    assert [file["path"] for file in await bench.list(recursive=1)] == ["model2", "modelx/y"]
    assert (await bench.get("model/a"))["state"] == "missing"
    await bench.call("DELETE", TREE, 404, params={"path": "model"})


async def test_garbage_is_counted_then_collected_and_nothing_else_goes(bench):
    kept, gone = noise(1000), noise(2000)
    await bench.put("kept", kept)
    await bench.put("gone", gone)
    await bench.call("DELETE", TREE, params={"path": "gone"})
    big = noise(2 * PART + 1)
    (begun,) = await bench.begin(announced("big", big))
    await bench.parts(begun, big, 1)
    nothing = {"uploads": 0, "objects": 0, "orphans": 0, "bytes": 0, "next": None}
    assert await bench.call("POST", paths.ARTIFACT_GC, json={}) == nothing
    dry = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0, "dry_run": True})
    assert (dry["uploads"], dry["objects"], dry["bytes"]) == (1, 1, 2000)
    wet = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0})
    assert (wet["uploads"], wet["objects"]) == (1, 1)
    assert await bench.content("kept") == kept
    await fetch(bench.database_url, "DELETE FROM artifacts")
    await fetch(bench.database_url, "DELETE FROM objects")
    lost = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0})
    assert (lost["orphans"], lost["bytes"]) == (1, 1000)
    assert await everything(bench) == 0


async def test_garbage_is_collected_in_steps_that_go_on_where_the_last_one_was(bench, monkeypatch):
    monkeypatch.setattr("stepstream_ingest.artifacts.collect.AT_A_TIME", 2)
    monkeypatch.setattr("stepstream_ingest.artifacts.routes.COLLECT_S", 0.0)
    bodies = {f"{sort}/{number}": noise(1000) for sort in ("kept", "gone") for number in range(5)}
    for path, body in bodies.items():
        await bench.put(path, body)
    await bench.call("DELETE", TREE, params={"path": "gone"})
    for number in range(3):
        await bench.begin(announced(f"begun/{number}", noise(PART + 1)))

    async def steps(**said) -> list[dict]:
        done = [await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0, "after": ""} | said)]
        while done[-1]["next"] is not None:
            said["after"] = done[-1]["next"]
            done.append(await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0} | said))
        return done

    for said in {"dry_run": True}, {}:
        done = await steps(**said)
        assert [sum(step[count] for step in done) for count in ("uploads", "objects", "bytes")] == [3, 5, 5000]
        assert len(done) >= 5  # ten objects, two at a time
        assert all(step["objects"] <= 2 for step in done)
    assert await everything(bench) == 5
    for number in range(5):
        assert await bench.content(f"kept/{number}") == bodies[f"kept/{number}"]


async def test_bytes_that_come_through_the_server_are_stored_the_same(bench):
    """As MLflow's client sends them."""
    for path, size in (("small", 1000), ("large", PART * 2 + 77)):
        body = noise(size)
        url = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/m/{path}"
        await bench.call("PUT", url, data=body)
        assert await bench.content(f"m/{path}") == body
        assert (await bench.get(f"m/{path}"))["sha256"] == hashlib.sha256(body).hexdigest()
        async with bench.client.get(url) as response:
            assert await response.read() == body


@pytest.mark.parametrize("size", [1000, PART + 1000], ids=["small", "in parts"])
async def test_nothing_is_kept_of_bytes_through_the_server_that_break_off(bench, size):
    _, writer = await asyncio.open_connection("127.0.0.1", bench.client.port)
    head = f"PUT {THROUGH}m/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size + 1}\r\n\r\n"
    writer.write(head.encode() + noise(size))
    await writer.drain()
    await until(lambda: uploads_under_way(bench), 1)
    if size > PART:
        await until(lambda: everything(bench), 1)
    writer.transport.abort()
    await until(lambda: uploads_under_way(bench), 0)
    await until(lambda: everything(bench), 0)
    assert await fetch(bench.database_url, "SELECT FROM artifacts") == []


async def test_nothing_is_kept_of_what_is_carried_when_the_carrier_is_cancelled(bench):
    database = Database(bench.database_url)
    uploads = Uploads(database, Manifest(database), bench.client.app[STORE])
    entry = Entry(owner=UUID(RUN), path="a", size=-1, content_type="text/plain", logged_at_ms=5, rank=None)
    waits = asyncio.Event()

    async def body():
        yield noise(PART)
        yield noise(PART)
        waits.set()
        await asyncio.Event().wait()

    carrying = asyncio.create_task(uploads.carry(entry, body()))
    await waits.wait()
    assert await uploads_under_way(bench) == 1
    assert await everything(bench)
    for _ in range(3):
        carrying.cancel()
        await asyncio.sleep(0)
    await uploads.close()
    assert (await uploads_under_way(bench), await everything(bench)) == (0, 0)
    with pytest.raises(asyncio.CancelledError):
        await carrying
    await database.close()


async def test_ranks_that_log_the_same_large_file_at_once_all_have_it(bench):
    body = noise(2 * PART + 5)
    first, second = [(await bench.begin(announced("big", body), rank=rank))[0] for rank in (0, 1)]
    assert first["upload_id"] == second["upload_id"]
    await asyncio.gather(bench.parts(first, body, 1, 2, 3), bench.parts(second, body, 1, 2, 3))
    said = {"upload_id": first["upload_id"], "checksums": checksums(first, body)}
    answers = await asyncio.gather(*(bench.complete(said) for _ in range(4)))
    assert [one["state"] for (one,) in answers] == ["stored"] * 4
    assert await bench.content("big") == body
    assert (await bench.get("big"))["sha256"] == hashlib.sha256(body).hexdigest()
    assert await everything(bench) == 1


async def test_a_file_that_is_completed_again_is_stored(bench):
    body = noise(1000)
    one, two = await bench.begin(announced("one", body), announced("two", body))
    for begun in (one, two):
        assert await bench.send(begun, body) < 300
    for _ in range(2):
        for begun in (one, two):
            (done,) = await bench.complete({"upload_id": begun["upload_id"]})
            assert done["state"] == "stored", done
    await bench.call("DELETE", paths.upload(one["upload_id"]), 404)
    assert await bench.content("one") == body == await bench.content("two")


async def test_what_is_given_up_while_it_is_completed_is_not_listed(bench, monkeypatch):
    body = noise(2 * PART)
    (begun,) = await bench.begin(announced("big", None))
    await bench.parts(begun, body, 1, 2)
    joining, go_on = held_back(monkeypatch, bench.client.app[STORE], "complete_parts")
    said = {"upload_id": begun["upload_id"], "size": len(body), "checksums": checksums(begun, body)}
    completing = asyncio.create_task(bench.complete(said))
    await joining.wait()
    wet = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0})
    assert wet["uploads"] == 1
    go_on.set()
    (done,) = await completing
    assert done["state"] == "refused"
    assert await bench.list() == []
    await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0})
    assert await everything(bench) == 0


async def test_what_is_completed_while_garbage_is_collected_is_whole_or_not_listed(bench, monkeypatch):
    bodies = {"a": noise(2 * PART + 1), "b": noise(2 * PART + 2)}
    begun = {path: (await bench.begin(announced(path, body)))[0] for path, body in bodies.items()}
    for path, body in bodies.items():
        await bench.parts(begun[path], body, 1, 2, 3)
    aborting, go_on = held_back(monkeypatch, bench.client.app[STORE], "abort_parts")
    collecting = asyncio.create_task(bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0}))
    await aborting.wait()
    for path, body in bodies.items():
        await bench.complete({"upload_id": begun[path]["upload_id"], "checksums": checksums(begun[path], body)})
    go_on.set()
    await collecting
    for file in await bench.list():
        assert await bench.content(file["path"]) == bodies[file["path"]]


async def test_parts_that_are_left_beside_a_whole_file_are_collected(bench):
    """As a server leaves them that is killed between joining and removing."""
    body = noise(1000)
    await bench.put("kept", body)
    store = bench.client.app[STORE]
    (kept,) = await fetch(bench.database_url, "SELECT object_id FROM objects")
    key = object_key(kept["object_id"])
    token = await store.begin_parts(key, checked=False)
    await store.write_part(key, token, 1, noise(PART))
    assert await store.parts(key, token, PART)
    if bench.kind == "azure":
        assert await everything(bench) == 2
        await store.abort_parts(key, token)
    else:
        dry = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0, "dry_run": True})
        assert (dry["orphans"], await everything(bench)) == (1, 2)
        wet = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0})
        assert wet["orphans"] == 1
    assert await everything(bench) == 1
    assert not await store.parts(key, token, PART)
    assert await bench.content("kept") == body


async def test_parts_that_no_table_knows_are_collected(bench):
    if bench.kind == "azure":
        pytest.skip("Azure does not say how old they are, and removes them itself after a week")
    (begun,) = await bench.begin(announced("big", None))
    await bench.parts(begun, noise(1000), 1)
    await fetch(bench.database_url, "DELETE FROM uploads")
    nothing = {"uploads": 0, "objects": 0, "orphans": 0, "bytes": 0, "next": None}
    assert await bench.call("POST", paths.ARTIFACT_GC, json={}) == nothing
    dry = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0, "dry_run": True})
    assert (dry["orphans"], await everything(bench)) == (1, 1)
    wet = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0})
    assert (wet["orphans"], await everything(bench)) == (1, 0)


async def test_a_part_of_other_bytes_is_refused(bench):
    if bench.kind == "google":
        pytest.skip("the emulator looks at no checksum; test_google_signature shows that it is signed")
    body, other = noise(PART), noise(PART)
    (begun,) = await bench.begin(announced("big", None))
    wanted = {"parts": [{"number": 1, "size": PART, "checksum": digest(begun["checksum"], [body])}]}
    signed = await bench.call("POST", paths.upload(begun["upload_id"]) + "/parts", json=wanted)
    assert await bench.send(signed["parts"][0], other) in (400, 403)
    (early,) = await bench.complete({"upload_id": begun["upload_id"]})
    assert early["code"] == "PARTS_MISSING"


async def test_an_expired_download_is_refused(bench, monkeypatch):
    if bench.kind == "google":
        pytest.skip("the emulator does not look at the time")
    await bench.put("a", b"secret")
    for module in ("directory", "s3", "azure"):
        monkeypatch.setattr(f"stepstream_ingest.artifacts.stores.{module}.SIGNED_FOR_S", 1)
    said = await bench.get("a")
    await asyncio.sleep(2.5)
    status, body, _ = await bench.fetch(said)
    assert status in (400, 401, 403)
    assert b"secret" not in body


async def test_the_server_reads_files_and_ranges_and_is_told_what_is_gone(bench):
    body = noise(3 * 2**20 + 7)
    await bench.put("a", body)
    store = bench.client.app[STORE]
    (row,) = await fetch(bench.database_url, "SELECT object_id FROM objects")
    key = object_key(row["object_id"])
    for start, length in ((0, None), (0, 1000), (2**20 - 1, 2**20 + 2), (len(body) - 5, 5)):
        pieces = [piece async for piece in store.read(key, start, length)]
        assert b"".join(pieces) == body[start : None if length is None else start + length]
    assert (await store.seen(key)).size == len(body)
    await store.delete([key])
    with pytest.raises(ObjectGone):
        [piece async for piece in store.read(key)]
    assert await store.seen(key) is None
    said = await bench.call("GET", TREE + "/preview", 404, params={"path": "a"})
    assert said["error_code"] == "RESOURCE_DOES_NOT_EXIST"


async def test_mlflow_is_sent_to_where_a_file_lies(bench):
    body = noise(1000)
    await bench.put("m/a", body)
    url = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/m/a"
    async with bench.client.get(url, allow_redirects=False) as response:
        assert response.status == 302
        assert await response.read() == b""
        said = {"url": response.headers["Location"], "headers": {}}
    status, got, _ = await bench.fetch(said)
    assert (status, got) == (200, body)


async def test_a_store_that_checks_md5_is_told_one(bench):
    body = noise(1000)
    said = announced("a", body)
    del said["md5"]
    (begun,) = await bench.begin(said)
    needed = bench.kind in ("azure", "google")
    assert begun["state"] == ("refused" if needed else "put")
    assert not needed or begun["code"] == "MD5_REQUIRED"


async def test_what_was_put_without_its_checksum_is_looked_at(bench):
    if bench.kind not in ("azure", "google"):
        pytest.skip("the checksum is under the signature")
    body, other = noise(1000), noise(1000)
    (begun,) = await bench.begin(announced("a", body))
    headers = {name: value for name, value in begun["headers"].items() if name != "Content-MD5"}
    assert await bench.send(begun | {"headers": headers}, other) < 300
    (done,) = await bench.complete({"upload_id": begun["upload_id"]})
    assert (done["state"], "MD5" in done["message"]) == ("refused", True)
    assert await bench.list() == []
    assert await everything(bench) == 0


async def test_the_url_of_a_part_cannot_replace_the_file(bench):
    body, other = noise(PART + 1), noise(1000)
    (begun,) = await bench.begin(announced("big", None))
    sums = checksums(begun, body)
    wanted = [{"number": n + 1, "size": size, "checksum": sums[n]} for n, size in enumerate((PART, 1))]
    signed = await bench.call("POST", paths.upload(begun["upload_id"]) + "/parts", json={"parts": wanted})
    for part in signed["parts"]:
        assert await bench.send(part, body[:PART] if part["number"] == 1 else body[PART:]) < 300
    said = {"upload_id": begun["upload_id"], "size": len(body), "checksums": sums}
    (done,) = await bench.complete(said)
    assert done["state"] == "stored", done
    part = signed["parts"][1]
    query = [one for one in parse_qsl(urlsplit(part["url"]).query) if one[0] not in ("comp", "blockid", "partNumber")]
    whole = urlsplit(part["url"])._replace(query=urlencode(query)).geturl()
    for url in (part["url"], whole):
        await bench.send({"url": url, "method": "PUT", "headers": {"x-ms-blob-type": "BlockBlob"}}, other)
    assert await bench.content("big") == body


def held_back(monkeypatch, store, method) -> tuple[asyncio.Event, asyncio.Event]:
    """Where the store is asked for this, and when it may go on."""
    reached, go_on, ask = asyncio.Event(), asyncio.Event(), getattr(store, method)

    async def wait(*said):
        reached.set()
        await go_on.wait()
        return await ask(*said)

    monkeypatch.setattr(store, method, wait)
    return reached, go_on


async def until(ask: Callable[[], Awaitable[int]], wanted: int) -> None:
    for _ in range(3000):
        if await ask() == wanted:
            return
        await asyncio.sleep(0.02)
    assert await ask() == wanted


async def uploads_under_way(bench: Bench) -> int:
    return len(await fetch(bench.database_url, "SELECT FROM uploads WHERE finished_at IS NULL"))


async def everything(bench: Bench) -> int:
    """Objects that are really in the store."""
    return sum([1 async for _ in bench.client.app[STORE].scan("")])


def _altered(name: str, value: str) -> str:
    low = name.lower()
    if low in ("expires", "x-amz-expires"):
        return str(int(value) + 1000)
    return "2099-01-01T00:00:00Z" if low == "se" else value
