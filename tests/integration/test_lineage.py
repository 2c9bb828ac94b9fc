"""From a version of a model to its run, its commit, its data and its environment, in one request."""

import pytest

from stepstream_schema import paths
from tests.integration.app import running
from tests.integration.test_mlflow_metrics import call

DATASET = {"name": "iris", "digest": "d1", "source_type": "local", "source": "x"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
async def client(database_url, tmp_path):
    async with running(database_url, artifact_root=f"file://{tmp_path}/files") as client:
        yield client


async def lineage(client, name, version, expected=200):
    async with client.get(paths.lineage(name, version)) as response:
        assert response.status == expected, await response.text()
        return await response.json()


async def test_a_version_leads_to_all_that_made_it(client):
    tags = [{"key": "mlflow.source.git.commit", "value": COMMIT}, {"key": "mlflow.source.name", "value": "train.py"}]
    made = await call(client, "runs/create", experiment_id="0", run_name="r", user_id="ann", start_time=5, tags=tags)
    run = made["run"]["info"]
    run_id = run["run_id"]
    context = [{"key": "mlflow.data.context", "value": "training"}]
    await call(client, "runs/log-inputs", run_id=run_id, datasets=[{"tags": context, "dataset": DATASET}])
    await call(client, "runs/log-parameter", run_id=run_id, key="lr", value="0.1")
    place = run["artifact_uri"].removeprefix("mlflow-artifacts:")
    async with client.put(
        f"/api/2.0/mlflow-artifacts/artifacts{place}/net/requirements.txt", data=b"numpy"
    ) as response:
        assert response.status == 200
    await call(client, "registered-models/create", name="my net")
    await call(client, "model-versions/create", name="my net", source=f"runs:/{run_id}/net", run_id=run_id)
    async with client.post(
        "/api/2.0/mlflow/registered-models/alias", json={"name": "my net", "alias": "best", "version": "1"}
    ):
        pass
    found = await lineage(client, "my net", "1")
    assert found["version"]["aliases"] == ["best"]
    assert (found["run"]["run_id"], found["run"]["experiment"], found["run"]["user"]) == (run_id, "Default", "ann")
    assert found["run"]["params"] == {"lr": "0.1"}
    assert found["code"] == {"commit": COMMIT, "branch": None, "repository": None, "entry_point": "train.py"}
    assert found["datasets"] == [DATASET | {"schema": "", "profile": "", "tags": {"mlflow.data.context": "training"}}]
    assert [(one["path"], one["size"]) for one in found["environment"]] == [("net/requirements.txt", 5)]
    assert found["model"] is None


async def test_a_logged_model_leads_to_its_run(client):
    run_id = (await call(client, "runs/create", experiment_id="0", start_time=5))["run"]["info"]["run_id"]
    said = {"experiment_id": "0", "name": "net", "source_run_id": run_id, "params": [{"key": "depth", "value": "3"}]}
    model = (await call(client, "logged-models", **said))["model"]["info"]
    place = model["artifact_uri"].removeprefix("mlflow-artifacts:")
    async with client.put(f"/api/2.0/mlflow-artifacts/artifacts{place}/MLmodel", data=b"x") as response:
        assert response.status == 200
    await call(client, "registered-models/create", name="net")
    source = f"models:/{model['model_id']}"
    await call(client, "model-versions/create", name="net", source=source, model_id=model["model_id"])
    found = await lineage(client, "net", "1")
    assert found["model"]["params"] == {"depth": "3"}
    assert found["run"]["run_id"] == run_id
    assert found["code"] is None
    assert [one["path"] for one in found["environment"]] == ["MLmodel"]


async def test_what_is_not_known_is_empty_and_what_is_not_there_is_said(client):
    await call(client, "registered-models/create", name="net")
    await call(client, "model-versions/create", name="net", source="s3://elsewhere/model")
    found = await lineage(client, "net", "1")
    assert (found["run"], found["model"], found["code"]) == (None, None, None)
    assert (found["datasets"], found["environment"]) == ([], [])
    assert (await lineage(client, "net", "2", 404))["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert (await lineage(client, "none", "1", 404))["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert (await lineage(client, "net", "x", 400))["error_code"] == "INVALID_PARAMETER_VALUE"
