"""Our own JSON API over all slices, and the OpenAPI document that describes it."""

import math

import openapi_spec_validator
import pytest

from stepstream_schema import paths
from tests.integration.app import RUN, frame, get, metrics, post, running, start


@pytest.fixture
async def client(database_url):
    async with running(database_url) as client:
        yield client


async def ask(client, method, path, body=None, expected=200, **query):
    async with client.request(method, path, json=body, params=query) as response:
        assert response.status == expected, await response.text()
        return await response.json()


async def test_the_document_is_valid_and_has_every_route(client):
    document = await get(client, paths.OPENAPI)
    openapi_spec_validator.OpenAPIV31SpecValidator(document).validate()
    registered = {
        (route.resource.canonical, route.method.lower())
        for route in client.app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/v1/") and route.method != "HEAD"
    }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described == registered
    assert len(described) > 60
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    assert all(operation["summary"] for item in document["paths"].values() for operation in item.values())


async def test_experiments_from_the_first_to_the_last_call(client):
    made = await ask(client, "POST", paths.EXPERIMENTS, {"name": "a", "tags": {"team": "x"}})
    one = paths.experiment(made["experiment_id"])
    assert made == await ask(client, "POST", paths.EXPERIMENTS, {"name": "a", "tags": {"team": "ignored"}})
    taken = await ask(client, "POST", paths.EXPERIMENTS, {"name": "a", "exclusive": True}, 400)
    assert taken["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert (await ask(client, "PATCH", one, {"name": "b"}))["name"] == "b"
    assert (await ask(client, "POST", one + "/tags", {"tags": {"k": "v"}}))["tags"] == {"team": "x", "k": "v"}
    assert (await ask(client, "DELETE", one + "/tags", key="team"))["tags"] == {"k": "v"}
    assert (await ask(client, "DELETE", one))["lifecycle_stage"] == "deleted"
    search = paths.EXPERIMENTS + "/search"
    assert [e["name"] for e in (await ask(client, "POST", search, {}))["experiments"]] == ["Default"]
    assert [e["name"] for e in (await ask(client, "POST", search, {"view": "deleted"}))["experiments"]] == ["b"]
    assert (await ask(client, "POST", one + "/restore"))["lifecycle_stage"] == "active"
    asked = {"filter": "name LIKE '%'", "order_by": ["name ASC"], "max_results": 1}
    first = await ask(client, "POST", search, asked)
    second = await ask(client, "POST", search, asked | {"page_token": first["next_page_token"]})
    assert [e["name"] for e in first["experiments"] + second["experiments"]] == ["Default", "b"]
    assert second["next_page_token"] is None


async def test_a_run_is_logged_searched_changed_and_restored(client):
    made = await ask(client, "POST", paths.RUNS, {"experiment": "e", "name": "r", "tags": {"a": "1"}})
    one = paths.run(made["run_id"])
    points = [{"key": "loss", "value": value, "step": step} for step, value in enumerate((3.0, "NaN", "-Infinity"))]
    batch = {"metrics": points, "params": {"lr": "0.1"}, "tags": {"b": "2"}}
    assert await ask(client, "POST", one + "/log", batch) == {}
    found = await ask(client, "GET", one)
    assert found["metrics"]["loss"] | {"time_ms": 0} == {"value": "-Infinity", "step": 2, "time_ms": 0}
    assert (found["params"], found["tags"]) == ({"lr": "0.1"}, {"a": "1", "b": "2", "mlflow.runName": "r"})
    assert found["artifact_uri"] == f"mlflow-artifacts:/{found['experiment_id']}/{made['run_id']}/artifacts"
    conflict = await ask(client, "POST", one + "/log", {"params": {"lr": "0.2"}}, 400)
    assert "Changing param values is not allowed" in conflict["message"]
    asked = {"experiment_names": ["e"], "filter": "params.lr = '0.1'", "order_by": ["metrics.loss DESC"]}
    assert [r["run_id"] for r in (await ask(client, "POST", paths.RUNS + "/search", asked))["runs"]] == [made["run_id"]]
    assert (await ask(client, "POST", paths.RUNS + "/search", {"filter": "params.lr = '7'"}))["runs"] == []
    assert await ask(client, "DELETE", one + "/tags", key="a") == {}
    changed = await ask(client, "PATCH", one, {"status": "KILLED", "end_time_ms": 7, "name": "s"})
    assert (changed["status"], changed["end_time_ms"], changed["name"]) == ("KILLED", 7, "s")
    assert (await ask(client, "DELETE", one))["lifecycle_stage"] == "deleted"
    assert (await ask(client, "POST", paths.RUNS + "/search", {}))["runs"] == []
    assert (await ask(client, "POST", one + "/log", batch, 400))["error_code"] == "INVALID_PARAMETER_VALUE"
    assert (await ask(client, "POST", one + "/restore"))["lifecycle_stage"] == "active"


async def test_a_run_of_frames_and_one_of_requests_are_read_alike(client):
    await post(client, frame(1, start(), metrics({"loss": [1.0, math.inf]}), rank=3))
    found = await ask(client, "GET", paths.run(RUN))
    assert found["metrics"]["loss"]["value"] == "Infinity"
    assert [(writer["rank"], writer["frames"]) for writer in found["writers"]] == [(3, 1)]
    await ask(client, "POST", paths.run(RUN) + "/log", {"metrics": [{"key": "more", "value": 2, "step": 1}]})
    assert (await ask(client, "GET", paths.run(RUN)))["metrics"]["more"]["value"] == 2.0


async def test_datasets_and_models_of_a_run_lead_to_one_another(client):
    run = await ask(client, "POST", paths.RUNS, {"experiment": "e"})
    dataset = {"name": "iris", "digest": "d", "source_type": "local", "source": "x", "schema": "", "profile": ""}
    said = {"experiment_id": run["experiment_id"], "name": "net", "source_run_id": run["run_id"], "params": {"d": "3"}}
    model = await ask(client, "POST", paths.LOGGED_MODELS, said)
    one = paths.logged_model(model["model_id"])
    inputs = {"datasets": [dataset | {"tags": {"mlflow.data.context": "train"}}], "models": [model["model_id"]]}
    await ask(client, "POST", paths.run(run["run_id"]) + "/inputs", inputs)
    outputs = {"models": [{"model_id": model["model_id"], "step": 5}]}
    await ask(client, "POST", paths.run(run["run_id"]) + "/outputs", outputs)
    found = await ask(client, "GET", paths.run(run["run_id"]))
    assert [one["name"] for one in found["datasets"]] == ["iris"]
    assert {(use["direction"], use["step"]) for use in found["models"]} == {("input", 0), ("output", 5)}
    assert (await ask(client, "PATCH", one, {"status": "READY"}))["status"] == "LOGGED_MODEL_READY"
    assert (await ask(client, "POST", one + "/tags", {"tags": {"k": "v"}}))["tags"] == {"k": "v"}
    assert (await ask(client, "DELETE", one + "/tags", key="k"))["tags"] == {}
    assert (await ask(client, "POST", one + "/params", {"params": {"w": "9"}}))["params"] == {"d": "3", "w": "9"}
    asked = {"experiment_ids": [run["experiment_id"]], "filter": "params.d = '3'", "order_by": ["name ASC"]}
    found = await ask(client, "POST", paths.LOGGED_MODELS + "/search", asked)
    assert [m["model_id"] for m in found["models"]] == [model["model_id"]]
    assert (await ask(client, "DELETE", one))["lifecycle_stage"] == "deleted"


async def test_the_registry_from_the_first_to_the_last_call(client):
    run = await ask(client, "POST", paths.RUNS, {"experiment": "e"})
    await ask(client, "POST", paths.REGISTRY, {"name": "my net", "description": "d", "tags": {"t": "1"}})
    one = paths.registered_model("my%20net")
    source = {"source": f"runs:/{run['run_id']}/net", "run_id": run["run_id"], "tags": {"v": "1"}}
    for _ in range(2):
        version = await ask(client, "POST", one + "/versions", source)
    assert (version["version"], version["run_id"]) == (2, run["run_id"])
    second = paths.model_version("my%20net", "2")
    assert (await ask(client, "PUT", one + "/aliases/best", {"version": 2}))["aliases"] == {"best": 2}
    assert (await ask(client, "GET", one + "/aliases/best"))["version"] == 2
    assert (await ask(client, "PATCH", second, {"stage": "Production", "description": "x"}))["stage"] == "Production"
    first = {"stage": "Production", "archive_existing": True}
    await ask(client, "PATCH", paths.model_version("my%20net", "1"), first)
    assert (await ask(client, "GET", second))["stage"] == "Archived"
    assert (await ask(client, "POST", second + "/tags", {"tags": {"w": "2"}}))["tags"] == {"v": "1", "w": "2"}
    assert (await ask(client, "DELETE", second + "/tags", key="v"))["tags"] == {"w": "2"}
    found = await ask(client, "POST", paths.MODEL_VERSIONS + "/search", {"filter": "name = 'my net'"})
    assert [v["version"] for v in found["versions"]] == [2, 1] or [v["version"] for v in found["versions"]] == [1, 2]
    assert (await ask(client, "DELETE", one + "/aliases/best"))["aliases"] == {}
    assert await ask(client, "DELETE", second) == {}
    assert (await ask(client, "POST", one + "/tags", {"tags": {"u": "2"}}))["tags"] == {"t": "1", "u": "2"}
    assert (await ask(client, "DELETE", one + "/tags", key="t"))["tags"] == {"u": "2"}
    assert (await ask(client, "PATCH", one, {"name": "net", "description": "e"}))["name"] == "net"
    found = await ask(client, "POST", paths.REGISTRY + "/search", {"filter": "tags.u = '2'"})
    assert [(m["name"], m["description"]) for m in found["models"]] == [("net", "e")]
    assert await ask(client, "DELETE", paths.registered_model("net")) == {}
    assert (await ask(client, "GET", paths.registered_model("net"), expected=404))["error_code"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected", "said"),
    [
        ("POST", paths.RUNS + "/search", {"fitler": "x"}, 400, "fitler"),
        ("POST", paths.RUNS + "/search", {"filter": "metrics.x <"}, 400, "metrics.x <"),
        ("POST", paths.RUNS + "/search", {"max_results": 0}, 400, "max_results"),
        ("POST", paths.RUNS + "/search", {"page_token": "x"}, 400, "page token"),
        ("POST", paths.RUNS + "/search", {"experiment_names": ["none"]}, 404, "none"),
        ("POST", paths.RUNS, {"experiment_id": 99}, 404, "99"),
        ("POST", paths.RUNS, {"run_id": "zzz"}, 400, "run_id"),
        ("POST", paths.RUNS, {"name": "a\0b"}, 400, "name"),
        ("POST", paths.EXPERIMENTS, {"name": " "}, 400, "empty"),
        ("POST", paths.EXPERIMENTS, {}, 400, "name"),
        ("GET", paths.experiment("99999999999999999999"), None, 400, "whole number"),
        ("GET", paths.logged_model("x"), None, 404, "x"),
        ("GET", paths.model_version("none", "1"), None, 404, "none"),
        ("GET", paths.model_version("none", "x"), None, 400, "whole number"),
        ("GET", paths.RUNS + "?limti=1", None, 400, "limti"),
        ("POST", paths.run(RUN) + "/log", {"metrics": [{"key": "a", "value": "big"}]}, 400, "value"),
        ("POST", paths.run(RUN) + "/log", {"metrics": [{"key": "a\0", "value": 1}]}, 400, "metric name"),
        ("POST", paths.run(RUN) + "/log", {"metrics": [{"key": "a", "value": 1, "step": 2**63}]}, 400, "step"),
        ("POST", paths.run(RUN) + "/log", {"metrics": [{"key": "a", "value": 1}]}, 404, RUN),
        ("POST", paths.run(RUN) + "/inputs", {"datasets": [{"name": "x" * 501}]}, 404, RUN),
        ("PUT", paths.registered_model("n") + "/aliases/v9", {"version": 1}, 400, "v9"),
    ],
)
async def test_what_cannot_be_meant_is_said(client, method, path, body, expected, said):
    answer = await ask(client, method, path, body, expected)
    assert said in answer["message"]


async def test_more_than_a_batch_may_hold_is_refused_whole(client):
    run = await ask(client, "POST", paths.RUNS, {})
    many = {"metrics": [{"key": "a", "value": 1}] * 1001}
    answer = await ask(client, "POST", paths.run(run["run_id"]) + "/log", many, 400)
    assert "1000" in answer["message"]
    assert (await ask(client, "GET", paths.run(run["run_id"])))["metrics"] == {}


async def test_a_dataset_that_is_called_too_long_is_refused(client):
    run = await ask(client, "POST", paths.RUNS, {})
    for dataset in ({"name": "x" * 501}, {"name": "x", "digest": "d" * 37}, {"name": "x", "tags": {"k": "v" * 501}}):
        answer = await ask(client, "POST", paths.run(run["run_id"]) + "/inputs", {"datasets": [dataset]}, 400)
        assert "maximum length" in answer["message"]
