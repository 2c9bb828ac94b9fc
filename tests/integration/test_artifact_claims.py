"""Uploads that two complete, servers that are killed in between, disks that are full, collectors beside all of it."""

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest
from yarl import URL

from stepstream_ingest.app import STORE
from stepstream_ingest.artifacts import claims, uploads
from stepstream_ingest.artifacts.manifest import Entry, Manifest
from stepstream_ingest.artifacts.stores.directory import BROKEN_OFF_S
from stepstream_ingest.artifacts.stores.store import object_key
from stepstream_ingest.database import Database
from stepstream_schema import limits, paths
from tests.integration.app import RUN, fetch, running

TREE = paths.run_artifacts(RUN)
PART = limits.PART_BYTES
MPU = "/api/2.0/mlflow-artifacts/mpu"


@pytest.fixture
async def client(database_url, tmp_path):
    async with running(database_url, artifact_root=f"file://{tmp_path}") as client:
        yield client


async def begin(client, count: int | None = None, body: bytes = b"") -> dict:
    """An upload as MLflow's client begins it."""
    said = {"path": "/local/big.bin", "num_parts": count}
    async with client.post(f"{MPU}/create/0/{RUN}/artifacts/m", json=said) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def send(client, begun: dict, bodies: dict[int, bytes]) -> None:
    for number, body in bodies.items():
        url = URL(begun["credentials"][number - 1]["url"], encoded=True).relative()
        async with client.put(url, data=body) as response:
            assert response.status == 200, await response.text()


async def complete(client, begun: dict, *numbers: int) -> tuple[int, dict]:
    parts = [{"part_number": number, "etag": "x", "url": None} for number in numbers]
    said = {"path": "/local/big.bin", "upload_id": begun["upload_id"]} | ({"parts": parts} if numbers else {})
    async with client.post(f"{MPU}/complete/0/{RUN}/artifacts/m", json=said) as response:
        return response.status, await response.json()


async def content(client, path: str) -> bytes:
    async with client.get(TREE + "/content", params={"path": path}) as response:
        assert response.status == 200
        return await response.read()


async def collect(client, **said) -> dict:
    async with client.post(paths.ARTIFACT_GC, json=said) as response:
        assert response.status == 200
        return await response.json()


async def test_who_has_not_the_turn_is_told_to_ask_again_and_a_turn_ends_by_itself(client, database_url, monkeypatch):
    monkeypatch.setattr(claims, "WAIT_S", 0.5)
    begun = await begin(client, 1)
    await send(client, begun, {1: b"x" * 1000})
    await fetch(database_url, "UPDATE uploads SET claim = gen_random_uuid(), claimed_at = now()")
    status, said = await complete(client, begun, 1)
    assert (status, said["error_code"]) == (503, "STORE_AWAY")
    await fetch(database_url, "UPDATE uploads SET claimed_at = now() - interval '31 s'")
    assert (await complete(client, begun, 1))[0] == 200
    assert await content(client, "m/big.bin") == b"x" * 1000


async def test_a_turn_is_renewed_while_parts_are_joined(client, database_url, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_S", 0.05)
    begun = await begin(client, 1)
    await send(client, begun, {1: b"x"})
    store, go_on = client.app[STORE], asyncio.Event()
    join = store.complete_parts

    async def wait(*said):
        await go_on.wait()
        return await join(*said)

    monkeypatch.setattr(store, "complete_parts", wait)
    completing = asyncio.create_task(complete(client, begun, 1))
    seen = set()
    for _ in range(3000):
        seen |= {row["claimed_at"] for row in await fetch(database_url, "SELECT claimed_at FROM uploads")} - {None}
        if len(seen) >= 3:
            break
        await asyncio.sleep(0.02)
    go_on.set()
    assert (await completing)[0] == 200
    assert len(seen) >= 3


async def test_what_was_not_complete_can_be_completed_at_once(client, database_url):
    begun = await begin(client, 1)
    assert (await complete(client, begun, 1))[0] == 409
    assert [row["claim"] for row in await fetch(database_url, "SELECT claim FROM uploads")] == [None]
    await send(client, begun, {1: b"x"})
    assert (await complete(client, begun, 1))[0] == 200


async def test_finished_uploads_are_forgotten_after_a_day(client, database_url):
    begun = await begin(client, 1)
    await send(client, begun, {1: b"x"})
    for _ in range(2):
        assert (await complete(client, begun, 1))[0] == 200
    await begin(client, 1)
    assert len(await fetch(database_url, "SELECT FROM uploads")) == 2
    await fetch(database_url, "UPDATE uploads SET finished_at = finished_at - interval '25 hours'")
    await begin(client, 1)
    assert await fetch(database_url, "SELECT FROM uploads WHERE finished_at IS NOT NULL") == []
    assert len(await fetch(database_url, "SELECT FROM uploads")) == 2


async def test_a_server_that_was_killed_after_joining_left_what_can_be_completed(client, tmp_path):
    body = os.urandom(1000)
    begun = await begin(client, 1)
    await send(client, begun, {1: body})
    key = object_key(UUID(begun["upload_id"]))
    (tmp_path / key).parent.mkdir(exist_ok=True)
    (tmp_path / key).write_bytes(body)
    assert (await complete(client, begun, 1))[0] == 200
    assert await content(client, "m/big.bin") == body
    assert list((tmp_path / "parts").iterdir()) == []


async def test_a_twin_that_is_collected_in_between_is_no_object_of_anybody(database_url):
    database = Database(database_url)
    sha256, twin, mine = hashlib.sha256(b"x").digest(), uuid4(), uuid4()
    await fetch(database_url, "INSERT INTO objects (object_id, size, sha256) VALUES ($1, 1, $2)", twin, sha256)
    await fetch(
        database_url,
        "INSERT INTO uploads (upload_id, owner, path, content_type, logged_at_ms, part_bytes) "
        "VALUES ($1, $2, 'a', 'text/plain', 1, 1)",
        mine,
        UUID(RUN),
    )
    collector = await asyncpg.connect(database_url)
    async with collector.transaction():
        await collector.execute("SELECT FROM objects WHERE object_id = $1 FOR UPDATE", twin)
        entry = Entry(owner=UUID(RUN), path="a", size=1, content_type="text/plain", logged_at_ms=1, rank=None)
        listing = asyncio.create_task(Manifest(database).list_object(entry, sha256, mine))
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not await fetch(database_url, waits):
            await asyncio.sleep(0.02)
        await collector.execute("DELETE FROM objects WHERE object_id = $1", twin)
    assert await listing == mine
    assert [row["object_id"] for row in await fetch(database_url, "SELECT object_id FROM objects")] == [mine]
    assert [row["object_id"] for row in await fetch(database_url, "SELECT object_id FROM artifacts")] == [mine]
    await collector.close()
    await database.close()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files of this process can grow so far: a write across that is cut short, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_is_full_while_parts_are_joined_loses_nothing_and_keeps_nothing(client, tmp_path):
    bodies = {number: os.urandom(PART) for number in (1, 2)}
    begun = await begin(client, 2)
    await send(client, begun, bodies)
    with full_disk(PART + 1234):
        status, said = await complete(client, begun, 1, 2)
    assert (status, said["error_code"]) == (503, "STORE_AWAY")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["00001", "00002"]
    assert (await complete(client, begun, 1, 2))[0] == 200
    assert await content(client, "m/big.bin") == bodies[1] + bodies[2]


async def test_a_disk_that_is_full_while_a_file_arrives_keeps_nothing(client, database_url, tmp_path):
    with full_disk(2**20 + 1234):
        async with client.put(
            f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/a", data=bytes(2**21)
        ) as response:
            assert response.status == 503
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert await fetch(database_url, "SELECT FROM artifacts") == []


async def test_a_dry_run_counts_what_broke_off_and_touches_nothing(client, tmp_path):
    begun = await begin(client, 1)
    await send(client, begun, {1: b"x" * 7})
    old, young = (tmp_path / "incoming" / name for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"y" * 100)
    long_ago = time.time() - BROKEN_OFF_S - 60
    os.utime(old, (long_ago, long_ago))

    def files() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))

    before = files()
    dry = await collect(client, grace_s=3600, dry_run=True)
    assert (dry["uploads"], dry["orphans"], dry["bytes"]) == (0, 1, 100)
    assert (await collect(client, grace_s=0, dry_run=True))["uploads"] == 1
    assert files() == before
    wet = await collect(client, grace_s=3600)
    assert (wet["orphans"], wet["bytes"]) == (1, 100)
    assert files() == [name for name in before if name != "incoming/old"]


async def test_a_part_that_is_missing_at_the_end_is_asked_for(client, database_url):
    begun = await begin(client, 3)
    await send(client, begun, {1: b"a" * 10, 2: b"b" * 10})
    for numbers in ((1, 2), (1, 2, 3)):
        status, said = await complete(client, begun, *numbers)
        assert (status, said["error_code"]) == (409, "PARTS_MISSING")
    assert await fetch(database_url, "SELECT FROM artifacts") == []
    await send(client, begun, {3: b"c"})
    assert (await complete(client, begun, 1, 2))[0] == 409
    assert (await complete(client, begun, 1, 2, 3))[0] == 200
    assert await content(client, "m/big.bin") == b"a" * 10 + b"b" * 10 + b"c"


@pytest.mark.parametrize("numbers", [(), (2,), (1, 1), (1, 3), ("1",), (True,)])
async def test_a_list_of_parts_that_cannot_be_is_refused(client, numbers):
    begun = await begin(client, 1)
    await send(client, begun, {1: b"x"})
    assert (await complete(client, begun, *numbers))[0] == 400


async def test_others_have_a_turn_while_ten_thousand_parts_are_signed(client, monkeypatch):
    store, signed, seen = client.app[STORE], 0, [0]
    sign = store.sign_part

    async def count(*said, **more):
        nonlocal signed
        signed += 1
        return await sign(*said, **more)

    async def look():
        while True:
            seen.append(signed)
            await asyncio.sleep(0)

    monkeypatch.setattr(store, "sign_part", count)
    looking = asyncio.create_task(look())
    begun = await begin(client, 10_000)
    looking.cancel()
    assert len(begun["credentials"]) == 10_000
    steps = [after - before for before, after in zip(seen, [*seen[1:], signed], strict=True)]
    assert max(steps) <= uploads.SIGNED_AT_A_TIME
