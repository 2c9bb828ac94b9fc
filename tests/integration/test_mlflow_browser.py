"""Artifacts by links: of a run, a model version, a logged model, and small uploads from a page."""

import pytest

from tests.integration.app import running
from tests.integration.test_mlflow_metrics import ask, call

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
UPLOAD = "/ajax-api/2.0/mlflow/upload-artifact"


@pytest.fixture
async def stored(database_url, tmp_path):
    async with running(database_url, artifact_root=f"file://{tmp_path}/files") as client:
        run = (await call(client, "runs/create", experiment_id="0", start_time=1))["run"]["info"]
        model = (await call(client, "logged-models", experiment_id="0", name="net"))["model"]["info"]
        for info, path, text in ((run, "model/MLmodel", "flavors"), (model, "weights.txt", "1 2 3")):
            place = info["artifact_uri"].removeprefix("mlflow-artifacts:")
            async with client.put(f"{PROXY}{place}/{path}", data=text.encode()) as response:
                assert response.status == 200
        await call(client, "registered-models/create", name="net")
        source = f"runs:/{run['run_id']}/model"
        await call(client, "model-versions/create", name="net", source=source, run_id=run["run_id"])
        await call(client, "model-versions/create", name="net", source="s3://elsewhere/model")
        yield client, run["run_id"], model["model_id"]


async def body(client, url, **query):
    async with client.get(url, params=query) as response:
        return response.status, response.headers.get("Content-Disposition", ""), await response.text()


async def test_a_file_is_fetched_by_a_link(stored):
    client, run_id, model_id = stored
    for path, query, text in (
        ("/get-artifact", {"run_id": run_id, "path": "model/MLmodel"}, "flavors"),
        ("/get-artifact", {"run_uuid": run_id, "path": "model/MLmodel"}, "flavors"),
        ("/model-versions/get-artifact", {"name": "net", "version": "1", "path": "MLmodel"}, "flavors"),
        (
            f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files",
            {"artifact_file_path": "weights.txt"},
            "1 2 3",
        ),
    ):
        status, disposition, said = await body(client, path, **query)
        assert (status, said) == (200, text)
        assert disposition.startswith("attachment")


async def test_what_cannot_be_fetched_is_said(stored):
    client, run_id, _ = stored
    version = {"name": "net", "path": "MLmodel"}
    for path, query, status, word in (
        ("/get-artifact", {"run_id": run_id, "path": "none"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("/get-artifact", {"run_id": run_id, "path": "../x"}, 400, "INVALID_PARAMETER_VALUE"),
        ("/get-artifact", {"run_id": run_id}, 400, "'path'"),
        ("/get-artifact", {"path": "x"}, 400, "'run_id'"),
        ("/model-versions/get-artifact", version | {"version": "x"}, 400, "an integer"),
        ("/model-versions/get-artifact", version | {"version": "9"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("/model-versions/get-artifact", version | {"version": "2"}, 400, "s3://elsewhere/model"),
    ):
        got, _, said = await body(client, path, **query)
        assert got == status, said
        assert word in said


async def test_a_page_stores_a_small_file(stored):
    client, run_id, _ = stored
    query = {"run_id": run_id, "path": "notes/a.txt"}
    async with client.post(UPLOAD, params=query, data=b"hello") as response:
        assert response.status == 200
    assert (await body(client, "/get-artifact", **query))[2] == "hello"
    listed = await ask(client, "artifacts/list", run_id=run_id)
    assert [one["path"] for one in listed["files"]] == ["model", "notes"]


async def test_a_page_does_not_store_a_large_one(stored):
    client, run_id, _ = stored
    query = {"run_id": run_id, "path": "big"}
    async with client.post(UPLOAD, params=query, data=bytes(10 * 2**20 + 1)) as response:
        assert response.status == 400
        assert "too large" in await response.text()
    assert (await body(client, "/get-artifact", **query))[0] == 404


async def test_a_proxied_file_is_deleted(stored):
    client, run_id, _ = stored
    async with client.delete(f"{PROXY}/0/{run_id}/artifacts/model/MLmodel") as response:
        assert response.status == 200
    assert (await body(client, "/get-artifact", run_id=run_id, path="model/MLmodel"))[0] == 404
