"""A file and a directory of one name: no disk holds both."""

import pytest

from stepstream_ingest.artifacts import manifest
from stepstream_schema import paths
from tests.integration.app import RUN, fetch, running
from tests.integration.test_artifacts import Bench, announced

PROXY = f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/"
MPU = f"/api/2.0/mlflow-artifacts/mpu/create/0/{RUN}/artifacts/"


@pytest.fixture
async def bench(database_url):
    async with running(database_url) as client:
        yield Bench("directory", client, client.session, database_url)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("out", "out/x.txt", "'out' is a file"),
        ("out", "out/deep/er/x.txt", "'out' is a file"),
        ("a/out", "a/out/x", "'a/out' is a file"),
        ("out/x.txt", "out", "it is a directory, of 'out/x.txt'"),
        ("out/deep/x.txt", "out", "it is a directory, of 'out/deep/x.txt'"),
    ],
)
async def test_a_file_that_would_hide_another_is_refused(bench, first, second, said):
    await bench.put(first, b"first")
    (refused,) = await bench.begin(announced(second, b"second"))
    assert (refused["state"], refused["code"]) == ("refused", "INVALID_PARAMETER_VALUE")
    assert said in refused["message"]
    for call in (("PUT", PROXY + second, {"data": b"x"}), ("POST", MPU + second, {"json": {"num_parts": 2}})):
        assert said in (await bench.call(*call[:2], status=400, **call[2]))["message"]
    assert [file["path"] for file in await bench.list(recursive="1")] == [first]
    await bench.call("DELETE", paths.run_artifacts(RUN), params={"path": first})
    await bench.put(second, b"second")
    assert await bench.content(second) == b"second"


async def test_names_that_only_begin_alike_are_in_nobodys_way(bench):
    for path in ("out", "out.txt", "out-1/x", "out0/x", "outer/x", "in/out/x", "out"):
        await bench.put(path, path.encode())
    assert len(await bench.list(recursive="1")) == 6


async def test_of_files_announced_together_the_first_has_the_name(bench):
    said = await bench.begin(
        *(announced(path, path.encode()) for path in ("a", "a/b", "c/d", "c", "a\\b", "c/d/e", "c/e"))
    )
    assert [one["state"] for one in said] == ["put", "refused", "put", "refused", "refused", "refused", "put"]


async def test_what_was_stored_at_the_same_moment_is_listed_both(bench, monkeypatch):
    for path in ("a", "b/x", "d"):
        await bench.put(path, b"1")
    await bench.put("c", b"22")
    await fetch(
        bench.database_url,
        "INSERT INTO artifacts SELECT owner, 'c/y', object_id, size, content_type, logged_at_ms, rank FROM artifacts "
        "WHERE path = 'c'",
    )
    # Either may be logged again: nothing more is hidden by that.
    await bench.call("PUT", PROXY + "c", data=b"333")
    await bench.put("c/y", b"4444")
    (refused,) = await bench.begin(announced("c/z", b"new"))
    assert refused["state"] == "refused"
    found, after = [], ""
    while after is not None:
        page = await bench.call("GET", paths.run_artifacts(RUN), params={"limit": 1, "after": after})
        found += [(one["path"], one["is_dir"]) for one in page["files"]]
        after = page.get("next")
    assert found == [("a", False), ("b", True), ("c", False), ("c", True), ("d", False)]
    monkeypatch.setattr("stepstream_ingest.mlflow.artifacts.MAX_LISTED", 3)
    listed = await bench.call("GET", "/api/2.0/mlflow/artifacts/list", params={"run_id": RUN})
    assert [(one["path"], one["is_dir"]) for one in listed["files"]] == found
    assert manifest.place_of({"path": "x/c", "is_dir": True}) == "c/"


@pytest.mark.parametrize(("directory", "stored"), [("a%20b", "a b"), ("50%25", "50%"), ("%41", "A"), ("50%", "50%")])
async def test_clients_of_mlflow_find_a_directory_again_by_the_name_they_logged_it_to(bench, directory, stored):
    url = bench.client.make_url(f"/api/2.0/mlflow-artifacts/artifacts/0/{RUN}/artifacts/{stored}/x.txt")
    async with bench.client.session.put(url, data=b"x") as response:
        assert response.status == 200
    asked = {"path": f"0/{RUN}/artifacts/{directory}"}
    found = await bench.call("GET", "/api/2.0/mlflow-artifacts/artifacts", params=asked)
    assert [one["path"] for one in found["files"]] == ["x.txt"]
    assert [file["path"] for file in await bench.list(recursive="1")] == [f"{stored}/x.txt"]
