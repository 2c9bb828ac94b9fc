"""Objects that the store does not let go: S3 says so for each, in an answer that is no error."""

import hashlib
import os
from uuid import UUID

import pytest
from botocore.exceptions import ClientError

from stepstream_ingest.app import STORE
from stepstream_ingest.artifacts.stores import s3
from stepstream_ingest.artifacts.stores.store import object_key
from stepstream_schema import paths
from tests.integration.app import RUN, fetch, running
from tests.integration.test_artifacts import Bench, announced, checksums
from tests.stores import BUCKET


@pytest.fixture
async def bench(database_url, s3_environment, monkeypatch):
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    async with running(database_url, artifact_root=f"s3://{BUCKET}/prefix-{os.urandom(4).hex()}") as client:
        yield Bench("s3", client, client.session, database_url)


def refuse(monkeypatch, store, *refused: str) -> None:
    """The real store, but for these keys: no policy of SeaweedFS' can keep single objects."""
    call = store._call

    async def ask(operation, **said):
        if operation != "delete_objects":
            return await call(operation, **said)
        asked = said["Delete"]["Objects"]
        left = [one for one in asked if one["Key"].endswith(refused)]
        rest = [one for one in asked if one not in left]
        answer = dict(await call(operation, Delete={"Objects": rest, "Quiet": True})) if rest else {}
        errors = [one | {"Code": "AccessDenied", "Message": "Access Denied because of a lock"} for one in left]
        missing = [{"Key": "k", "Code": "NoSuchKey", "Message": "gone"}]
        return answer | {"Errors": errors + missing}

    monkeypatch.setattr(store, "_call", ask)


def refuse_to_abort(monkeypatch, store, *refused: str) -> None:
    """The real store, but for the parts of these keys: SeaweedFS asks for no permission of its own."""
    call = store._call

    async def ask(operation, **said):
        if operation == "abort_multipart_upload" and said["Key"].endswith(refused):
            error = {"Code": "AccessDenied", "Message": "not authorized to perform: s3:AbortMultipartUpload"}
            raise s3._translated(ClientError({"Error": error}, "AbortMultipartUpload"))
        return await call(operation, **said)

    monkeypatch.setattr(store, "_call", ask)


async def collected(bench) -> tuple[list[int], str | None]:
    """Objects, orphans and bytes that were removed, and what is said at the end of those that were not."""
    total, after = [0, 0, 0], ""
    while True:
        async with bench.client.post(paths.ARTIFACT_GC, json={"grace_s": 0, "after": after}) as response:
            said = await response.json()
        if response.status != 200:
            assert (response.status, said["error_code"]) == (503, "STORE_AWAY")
            return total, said["message"]
        total = [count + said[name] for count, name in zip(total, ("objects", "orphans", "bytes"), strict=True)]
        after = said["next"]
        if after is None:
            return total, None


async def test_objects_that_are_not_let_go_keep_no_others_and_are_told_at_the_end(bench, monkeypatch):
    monkeypatch.setattr("stepstream_ingest.artifacts.collect.AT_A_TIME", 2)
    monkeypatch.setattr("stepstream_ingest.artifacts.routes.COLLECT_S", 0.0)
    for number in range(7):
        await bench.put(f"gone/{number}", bytes([number]) * 1000)
    await bench.call("DELETE", paths.run_artifacts(RUN), params={"path": "gone"})
    store, rows = bench.client.app[STORE], await fetch(bench.database_url, "SELECT object_id FROM objects ORDER BY 1")
    kept = [object_key(rows[number]["object_id"]) for number in (1, 5)]
    refuse(monkeypatch, store, *kept)
    for removed in ([5, 0, 5000], [0, 0, 0]):
        counts, said = await collected(bench)
        assert counts == removed
        assert "2 objects" in said
        assert "AccessDenied: Access Denied because of a lock" in said
        assert [listed.key async for listed in store.scan("")] == kept
    monkeypatch.undo()
    assert await collected(bench) == ([0, 2, 2000], None)


async def test_parts_that_are_not_let_go_keep_no_others_and_are_told_at_the_end(bench, monkeypatch):
    monkeypatch.setattr("stepstream_ingest.artifacts.collect.AT_A_TIME", 2)
    begun = await bench.begin(*(announced(f"big {number}", None) for number in range(5)))
    ids = [one["upload_id"] for one in begun]
    store = bench.client.app[STORE]
    refuse_to_abort(monkeypatch, store, ids[1], ids[4])
    # Of the first two the rows go in the very collection that could not remove their parts.
    await fetch(bench.database_url, "DELETE FROM uploads WHERE upload_id <> ALL ($1::uuid[])", [ids[0], ids[1]])
    for removed in ([0, 2, 0], [0, 0, 0]):
        counts, said = await collected(bench)
        assert counts == removed
        assert "2 objects" in said
        assert "AccessDenied: not authorized to perform: s3:AbortMultipartUpload" in said
    assert {listed.key.rpartition("/")[2] async for listed in store.scan("")} == {ids[1], ids[4]}
    monkeypatch.undo()
    assert await collected(bench) == ([0, 2, 0], None)


async def test_a_whole_file_is_listed_also_where_parts_beside_it_are_not_let_go(bench, monkeypatch):
    """As a server leaves them that is killed between joining and listing, on stores that keep the parts."""
    body = b"whole"
    (begun,) = await bench.begin(announced("big", None))
    store = bench.client.app[STORE]
    await store.write(object_key(UUID(begun["upload_id"])), body)
    refuse_to_abort(monkeypatch, store, "")
    done = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "checksums": checksums(begun, body)}
    (completed,) = await bench.complete({"upload_id": begun["upload_id"]} | done)
    assert completed["state"] == "stored", completed
    assert await bench.content("big") == body


async def test_a_file_that_cannot_be_removed_keeps_no_others(database_url, tmp_path):
    async with running(database_url, artifact_root=f"file://{tmp_path}") as client:
        bench = Bench("directory", client, client.session, database_url)
        for name in "abc":
            await bench.put(name, name.encode())
        await bench.call("DELETE", paths.run_artifacts(RUN), params={"path": ""})
        rows = await fetch(database_url, "SELECT object_id FROM objects ORDER BY 1")
        path = tmp_path / object_key(rows[1]["object_id"])
        path.unlink()
        path.mkdir()
        counts, said = await collected(bench)
        assert counts[:2] == [2, 0]
        assert "1 objects" in said
        assert str(path) in said


@pytest.mark.parametrize(
    "after", ["left ", "left {}", 'left [1, "x", 7]', 'left ["1", "x", null]', "left " + "[" * 50_000]
)
async def test_a_place_that_nobody_answered_is_the_start(database_url, after):
    async with running(database_url) as client:
        bench = Bench("directory", client, client.session, database_url)
        assert (await bench.call("POST", paths.ARTIFACT_GC, json={"after": after}))["next"] is None


async def test_a_file_is_stored_twice_where_nothing_can_be_deleted(bench, monkeypatch):
    refuse(monkeypatch, bench.client.app[STORE], "")
    for path in ("a", "b"):
        url = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/{path}"
        await bench.call("PUT", url, data=b"the same")
        assert await bench.content(path) == b"the same"
    assert len(await fetch(bench.database_url, "SELECT FROM objects")) == 1
