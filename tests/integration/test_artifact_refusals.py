"""Objects that the store does not let go: S3 says so for each, in an answer that is no error."""

import os

import pytest

from stepstream_ingest.app import STORE
from stepstream_ingest.artifacts.stores.store import object_key
from stepstream_schema import paths
from tests.integration.app import RUN, fetch, running
from tests.integration.test_artifacts import Bench
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


async def test_an_object_that_is_not_let_go_is_not_counted_as_removed(bench, monkeypatch):
    await bench.put("gone", b"x" * 1000)
    await bench.call("DELETE", paths.run_artifacts(RUN), params={"path": "gone"})
    (row,) = await fetch(bench.database_url, "SELECT object_id FROM objects")
    key = object_key(row["object_id"])
    refuse(monkeypatch, bench.client.app[STORE], key)
    for _ in range(2):
        said = await bench.call("POST", paths.ARTIFACT_GC, 503, json={"grace_s": 0})
        assert said["error_code"] == "STORE_AWAY"
        assert "AccessDenied: Access Denied because of a lock" in said["message"]
    assert await bench.client.app[STORE].seen(key)
    monkeypatch.undo()
    said = await bench.call("POST", paths.ARTIFACT_GC, json={"grace_s": 0})
    assert (said["objects"], said["orphans"], said["bytes"]) == (0, 1, 1000)
    assert await bench.client.app[STORE].seen(key) is None


async def test_a_file_is_stored_twice_where_nothing_can_be_deleted(bench, monkeypatch):
    refuse(monkeypatch, bench.client.app[STORE], "")
    for path in ("a", "b"):
        url = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/{path}"
        await bench.call("PUT", url, data=b"the same")
        assert await bench.content(path) == b"the same"
    assert len(await fetch(bench.database_url, "SELECT FROM objects")) == 1
