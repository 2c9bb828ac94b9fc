"""The model registry by MLflow's protocol: what a version may come from."""

import pytest

from stepstream_schema import paths
from tests.integration.app import running
from tests.integration.test_mlflow_metrics import ask, call, new_run

NOWHERE = "0" * 32


@pytest.fixture
async def client(database_url):
    async with running(database_url, compaction=False) as client:
        await call(client, "registered-models/create", name="net")
        yield client


async def version(client, source, expected=200, **said):
    return await call(client, "model-versions/create", expected, name="net", source=source, **said)


async def test_a_source_lies_below_the_run_that_is_named(client):
    run_id, other = await new_run(client), await new_run(client)
    root = (await ask(client, "runs/get", run_id=run_id))["run"]["info"]["artifact_uri"]
    for source in (f"runs:/{run_id}/net", f"runs:/{run_id}", f"{root}/net", root, f"{root}/a%20b"):
        made = (await version(client, source, run_id=run_id))["model_version"]
        assert (made["source"], made["run_id"]) == (source, run_id)
    for source in (f"runs:/{run_id}/net", f"{root}/net", f"RUNS:/{run_id}/net", f"runs://host/{other}/net"):
        for said in ({}, {"run_id": other}):
            answer = await version(client, source, 400, **said)
            assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
            assert "Invalid model version source" in answer["message"]
    await version(client, f"{root}-not/net", 400, run_id=run_id)
    await version(client, f"mlflow-artifacts://host{root.partition(':')[2]}/net", 400, run_id=run_id)
    await version(client, f"http://host/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts", 400, run_id=run_id)
    await version(client, f"mlflow-artifacts:/0/{NOWHERE}/artifacts/net", 400, run_id=NOWHERE)


async def test_a_source_lies_below_the_logged_model_that_is_named(client):
    run_id = await new_run(client)
    made = await call(client, "logged-models", experiment_id="0", name="one", source_run_id=run_id)
    model, root = made["model"]["info"]["model_id"], made["model"]["info"]["artifact_uri"]
    other = (await call(client, "logged-models", experiment_id="0", name="two"))["model"]["info"]["model_id"]
    for source in (f"models:/{model}", root, f"{root}/deep", "s3://bucket/model"):
        found = (await version(client, source, model_id=model))["model_version"]
        assert (found["source"], found["model_id"], found["run_id"]) == (source, model, run_id)
    for source in (f"models:/{model}", root):
        await version(client, source, 400)
        await version(client, source, 400, model_id=other)
    await version(client, f"runs:/{run_id}/net", 400, run_id=run_id, model_id=model)


async def test_a_version_of_a_version_comes_from_what_that_one_comes_from(client):
    run_id, other = await new_run(client), await new_run(client)
    await version(client, "s3://bucket/net", run_id=run_id)
    await call(client, "registered-models/alias", name="net", alias="best", version="1")
    for source in ("models:/net/1", "models:/net@best", "models:/net/None", "models:/net/Latest"):
        made = (await version(client, source))["model_version"]
        assert made["source"].startswith("models:/net/")
        assert made["source"].rpartition("/")[2].isdigit()
        assert made["run_id"] == run_id
        uri = await ask(client, "model-versions/get-download-uri", name="net", version=made["version"])
        assert uri["artifact_uri"] == "s3://bucket/net"
    await version(client, "models:/net/1", 400, run_id=other)
    await version(client, "models:/net/1", 400, model_id=f"m-{NOWHERE}")
    await version(client, "models://host/net/1", 400)
    for nothing in ("models:/", "models:/net/", "models:/net/1/2", "models:/net", "models:/net/Best"):
        await version(client, nothing, 400)
    await version(client, "models:/net/99", 404)


@pytest.mark.parametrize(
    "source",
    [
        "s3://bucket/a/../b",
        "s3://bucket/a/%252e%252e/b",
        "s3://bucket/a/./b",
        "s3://bucket",
        "s3://[bucket/a",
        "runs:net",
        "mlflow-artifacts:7/net",
        "/etc/passwd",
        "file:///etc/passwd",
        "s3://bucket/" + "%25" * 5 + "2525252525252525252e",
    ],
)
async def test_a_source_that_is_no_absolute_path_of_a_store_is_refused(client, source):
    assert (await version(client, source, 400))["error_code"] == "INVALID_PARAMETER_VALUE"


async def test_by_our_own_api_a_source_names_its_run_or_logged_model_itself(client):
    run_id = await new_run(client)
    model = (await call(client, "logged-models", experiment_id="0", name="one"))["model"]["info"]["model_id"]
    place = paths.registered_model("net") + "/versions"
    for source, found in ((f"runs:/{run_id}/net", (run_id, None)), (f"models:/{model}", (None, model))):
        async with client.post(place, json={"source": source}) as response:
            assert response.status == 200, await response.text()
            made = await response.json()
        assert (made["run_id"], made["model_id"]) == found
    async with client.post(place, json={"source": f"runs:/{run_id}/net", "run_id": NOWHERE}) as response:
        assert response.status == 400


async def test_a_model_may_be_renamed_to_its_own_name_and_to_none_that_another_has(client):
    await version(client, "s3://bucket/net")
    await call(client, "registered-models/create", name="other")
    before = (await ask(client, "model-versions/get", name="net", version="1"))["model_version"]
    same = (await call(client, "registered-models/rename", name="net", new_name="net"))["registered_model"]
    assert [one["version"] for one in same["latest_versions"]] == ["1"]
    refused = await call(client, "registered-models/rename", 400, name="net", new_name="other")
    assert refused["error_code"] == "RESOURCE_ALREADY_EXISTS"
    await call(client, "registered-models/rename", name="net", new_name="new")
    after = (await ask(client, "model-versions/get", name="new", version="1"))["model_version"]
    assert after["last_updated_timestamp"] > before["last_updated_timestamp"]


async def test_on_a_page_each_model_and_version_has_its_own_tags_and_aliases(client):
    for name in ("net", "a", "b"):
        if name != "net":
            await call(client, "registered-models/create", name=name)
        for number in ("1", "2"):
            tags = [{"key": "v", "value": name + number}]
            await call(client, "model-versions/create", name=name, source="s3://bucket/x", tags=tags)
        await call(client, "registered-models/set-tag", name=name, key="m", value=name)
        await call(client, "registered-models/alias", name=name, alias=f"of-{name}", version="2")
    found = (await ask(client, "registered-models/search"))["registered_models"]
    assert [one["name"] for one in found] == ["a", "b", "net"]
    for one in found:
        assert one["tags"] == [{"key": "m", "value": one["name"]}]
        assert one["aliases"] == [{"alias": f"of-{one['name']}", "version": "2"}]
        (latest,) = one["latest_versions"]
        assert (latest["version"], latest["aliases"]) == ("2", [f"of-{one['name']}"])
    for one in (await ask(client, "model-versions/search"))["model_versions"]:
        assert one["tags"] == [{"key": "v", "value": one["name"] + one["version"]}]


async def test_prompts_are_refused_in_clear_words_and_leave_nothing_behind(client):
    prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    for path, said in (
        ("registered-models/create", {"name": "prompt"}),
        ("model-versions/create", {"name": "net", "source": "dummy-source"}),
    ):
        answer = await call(client, path, 501, tags=prompt, **said)
        assert answer["error_code"] == "NOT_IMPLEMENTED"
        assert "prompt" in answer["message"]
    await ask(client, "registered-models/get", 404, name="prompt")
    await call(client, "registered-models/create", name="model", tags=[prompt[0] | {"value": "false"}])
