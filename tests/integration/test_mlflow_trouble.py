"""Requests of MLflow's protocol that come together, late, or with what cannot be meant."""

import asyncio
import json

import pytest

from stepstream_ingest.database import Database
from stepstream_ingest.errors import NotStorable
from stepstream_schema import paths
from stepstream_schema.records import Start, Status
from tests.integration.app import RUN, frame, post, running
from tests.integration.test_mlflow_metrics import API, ask, call, new_run

BIG = "99999999999999999999"
NOWHERE = "0" * 32
HOSTILE = [
    ("runs/search", {"experiment_ids": ["0"], "filter": "params.p = 'a\0b'"}),
    ("runs/create", {"experiment_id": "0", "user_id": "a\0b"}),
    ("registered-models/create", {"name": "m", "description": "a\0b"}),
    ("experiments/search", {"max_results": 5, "filter": "name LIKE '%\\'"}),
    ("experiments/search", {"max_results": 5, "filter": f"creation_time > {BIG}"}),
    ("runs/search", {"experiment_ids": [BIG]}),
    ("logged-models/search", {"experiment_ids": ["0"], "filter": f"creation_time > {BIG} AND status = 9"}),
    ("logged-models/search", {"experiment_ids": ["0"], "max_results": BIG}),
    ("runs/create", {"experiment_id": "0", "start_time": BIG}),
    ("registered-models/alias", {"name": "m", "alias": "a", "version": "²"}),
    ("registered-models/alias", {"name": "m", "alias": "a", "version": BIG}),
    ("model-versions/create", {"name": "m", "source": f"models:/m/{BIG}"}),
    ("model-versions/create", {"name": "m", "source": "models:/m/²"}),
]
HOSTILE_QUESTIONS = [
    (f"{API}/model-versions/get", {"name": "m", "version": "²"}),
    (f"{API}/model-versions/get", {"name": "m", "version": "9" * 5000}),
    (f"{API}/model-versions/search", {"filter": f"version_number > {BIG}"}),
    (f"{API}/model-versions/search", {"filter": f"version_number = '{BIG}'"}),
    (f"{API}/model-versions/search", {"filter": "version_number = '²'"}),
    ("/model-versions/get-artifact", {"name": "m", "version": "²", "path": "x"}),
    (f"{API}/experiments/get", {"experiment_id": BIG}),
    (f"{API}/metrics/get-history-bulk-interval", {"run_ids": NOWHERE, "metric_key": "a", "max_results": "²"}),
    (f"{API}/metrics/get-history-bulk", {"run_id": NOWHERE, "metric_key": "a", "max_results": "-1"}),
    (paths.model_version("m", "9" * 5000), {}),
    (paths.run_history(NOWHERE), {"key": "a", "rank": BIG}),
]


async def test_many_updates_of_one_run_at_once_all_succeed(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        named = [{"key": "mlflow.runName", "value": "renamed"}]
        await asyncio.gather(
            *[call(client, "runs/update", run_id=run_id, status="RUNNING") for _ in range(12)],
            *[call(client, "runs/log-batch", run_id=run_id, tags=named) for _ in range(12)],
        )
        assert (await ask(client, "runs/get", run_id=run_id))["run"]["info"]["run_name"] == "renamed"


async def test_a_rename_does_not_undo_an_end_that_arrives_after_it(database_url):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, Start(experiment="x", name="first", time_ms=1)))
        await call(client, "runs/update", run_id=RUN, run_name="second")
        await post(client, frame(2, Status(status="FINISHED", time_ms=5)))
        info = (await ask(client, "runs/get", run_id=RUN))["run"]["info"]
        assert (info["run_name"], info["status"], info["end_time"]) == ("second", "FINISHED", 5)
        # Who says the status later than that has the last word.
        await call(client, "runs/update", run_id=RUN, status="FAILED")
        await post(client, frame(3, Status(status="FINISHED", time_ms=6)))
        assert (await ask(client, "runs/get", run_id=RUN))["run"]["info"]["status"] == "FAILED"


@pytest.mark.parametrize(("path", "body"), HOSTILE)
async def test_what_postgresql_cannot_take_is_a_mistake_of_the_request_and_no_defect(database_url, path, body):
    async with running(database_url, compaction=False) as client:
        said = await call(client, path, 400, **body)
        assert said["error_code"] == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(("path", "query"), HOSTILE_QUESTIONS)
async def test_a_question_with_numbers_that_nothing_can_hold_is_a_mistake_too(database_url, path, query):
    async with running(database_url, compaction=False) as client, client.get(path, params=query) as response:
        assert response.status in (400, 404), await response.text()
        assert (await response.json())["error_code"] in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


async def test_an_argument_that_cannot_be_sent_does_not_pass_for_an_outage(database_url):
    database = Database(database_url)
    for wrong in (2**63, "text"):
        with pytest.raises(NotStorable):
            await database.fetch("SELECT $1::bigint", wrong)
    await database.close()


async def test_a_metric_is_compared_with_a_number_of_any_length(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        await call(client, "runs/log-metric", run_id=run_id, key="a", value=1.5, timestamp=1)
        for number, found in ((BIG, 1), ("9" * 5000, 1), (f"-{BIG}", 0)):
            said = await call(client, "runs/search", experiment_ids=["0"], filter=f"metrics.a < {number}")
            assert len(said.get("runs", [])) == found


async def test_a_run_is_made_with_tags_of_any_key_but_of_none_twice(database_url):
    async with running(database_url, compaction=False) as client:
        tags = [{"key": "bad$", "value": "1"}, {"key": "a//b", "value": "v" * 8001}, {"value": "2"}]
        made = await call(client, "runs/create", experiment_id="0", tags=tags)
        said = {one.get("key", ""): one["value"] for one in made["run"]["data"]["tags"]}
        assert said.pop("mlflow.runName")
        assert said == {"bad$": "1", "a//b": "v" * 8000, "": "2"}
        for wrong in ([tags[0]] * 2, [{"key": "k" * 251}], [{"key": "a\0"}]):
            await call(client, "runs/create", 400, experiment_id="0", tags=wrong)


async def test_the_history_of_models_keeps_what_loads_them_however_large_they_are(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        flavors = {"python_function": {"loader_module": "m", "config": {"x": "y" * 9000}}, "net": "text"}
        model = {"run_id": run_id, "artifact_path": "m", "utc_time_created": "2020-01-01", "flavors": flavors}
        for _ in range(30):
            said = json.dumps(model | {"metadata": "x" * 9000, "model_uuid": "u"})
            await call(client, "runs/log-model", run_id=run_id, model_json=said)
        tags = (await ask(client, "runs/get", run_id=run_id))["run"]["data"]["tags"]
        (history,) = [json.loads(one["value"]) for one in tags if one["key"] == "mlflow.log-model.history"]
        kept = {"python_function": {"loader_module": "m"}, "net": "text"}
        assert history == [model | {"flavors": kept, "model_uuid": "u"}] * 30
        wrong = json.dumps(model | {"flavors": []})
        await call(client, "runs/log-model", 400, run_id=run_id, model_json=wrong)


async def test_a_logged_model_is_deleted_twice_and_takes_nothing_after_that(database_url):
    async with running(database_url, compaction=False) as client:
        place = f"{API}/logged-models/" + await new_model(client)
        for _ in range(2):
            async with client.delete(place) as response:
                assert response.status == 200
        async with client.patch(place + "/tags", json={"tags": [{"key": "a", "value": "b"}]}) as response:
            assert response.status == 404
        async with client.delete(f"{API}/logged-models/m-{NOWHERE}") as response:
            assert response.status == 404


async def test_a_tag_of_an_experiment_is_no_update_of_it(database_url):
    async with running(database_url, compaction=False) as client:
        before = (await ask(client, "experiments/get", experiment_id="0"))["experiment"]
        await call(client, "experiments/set-experiment-tag", experiment_id="0", key="a", value="b")
        after = (await ask(client, "experiments/get", experiment_id="0"))["experiment"]
        assert after == before | {"tags": [{"key": "a", "value": "b"}]}


async def test_artifacts_have_an_absolute_place(database_url):
    async with running(database_url, compaction=False) as client:
        for number, place in enumerate(("/abs", "file:///x", "s3://bucket", "", "C:\\x")):
            await call(client, "experiments/create", name=f"e{number}", artifact_location=place)
            made = (await ask(client, "experiments/get-by-name", experiment_name=f"e{number}"))["experiment"]
            assert made["artifact_location"] == (place or f"mlflow-artifacts:/{made['experiment_id']}")
        for place in ("relative", "./x", "../x", " "):
            refused = await call(client, "experiments/create", 400, name="e", artifact_location=place)
            assert refused["error_code"] == "INVALID_PARAMETER_VALUE"
        await ask(client, "experiments/get-by-name", 404, experiment_name="e")


async def test_a_models_metric_that_is_no_number_stays_none(database_url):
    async with running(database_url, compaction=False) as client:
        run_id, model = await new_run(client), await new_model(client)
        said = {"key": "a", "timestamp": 1, "model_id": model}
        await call(client, "runs/log-metric", run_id=run_id, value="NaN", **said)
        (found,) = (await ask(client, f"logged-models/{model}"))["model"]["data"]["metrics"]
        assert found["value"] == "NaN"


async def new_model(client) -> str:
    return (await call(client, "logged-models", experiment_id="0", name="net"))["model"]["info"]["model_id"]


async def test_signed_urls_are_refused_as_mlflow_refuses_them_so_that_clients_go_on_by_the_proxy(database_url):
    async with running(database_url, compaction=False) as client:
        own, model = {"run_id": await new_run(client)}, {"model_id": await new_model(client)}
        elsewhere = (await call(client, "experiments/create", name="s3", artifact_location="s3://b"))["experiment_id"]
        made = await call(client, "runs/create", experiment_id=elsewhere)
        for way, said, status in (
            ("upload", own, 400),
            ("upload", model, 400),
            ("upload", own | model, 400),
            ("upload", {}, 400),
            ("download", own, 400),
            ("download", {"run_id": NOWHERE}, 404),
            ("upload", {"run_id": made["run"]["info"]["run_id"]}, 501),
            ("download", own | {"path": "../x"}, 400),
        ):
            body = {"path": "a/b.txt"} | said
            async with client.post(f"{API}/artifacts/presigned-{way}-url", json=body) as response:
                assert response.status == status, await response.text()


async def test_a_model_is_logged_with_keys_that_fit_and_nothing_of_the_others(database_url):
    long = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    async with running(database_url, compaction=False) as client:
        made = await call(client, "logged-models", experiment_id="0", name="net")
        one = f"logged-models/{made['model']['info']['model_id']}"
        for key in ("k" * 251, long, "a\0"):
            said = [{"key": "fine", "value": "1"}, {"key": key, "value": "1"}]
            for path, body in (
                ("logged-models", {"experiment_id": "0", "params": said}),
                ("logged-models", {"experiment_id": "0", "tags": said}),
                (f"{one}/params", {"params": said}),
            ):
                assert "250 characters" in (await call(client, path, 400, **body))["message"]
        await call(client, f"{one}/params", params=[{"key": "k" * 250, "value": "1"}])
        found = await call(client, "logged-models/search", experiment_ids=["0"])
        (model,) = found["models"]
        assert [param["key"] for param in model["data"]["params"]] == ["k" * 250]


async def test_a_text_that_is_too_long_for_an_index_does_not_pass_for_a_defect(database_url):
    database = Database(database_url)
    await database.fetch("CREATE TABLE named (name text PRIMARY KEY)")
    with pytest.raises(NotStorable):
        # Random enough that PostgreSQL cannot make it short.
        await database.fetch("INSERT INTO named SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) AS n")
    await database.close()


@pytest.mark.parametrize(
    ("create", "rename", "id_field"),
    [
        ("experiments/create", "experiments/update", "experiment_id"),
        ("registered-models/create", "registered-models/rename", "name"),
    ],
)
async def test_of_two_that_are_given_one_name_at_once_one_has_it_and_the_other_is_told(
    database_url, create, rename, id_field
):
    async with running(database_url, compaction=False) as client:
        for number in range(10):
            pair = [await call(client, create, name=f"{number} {one}") for one in range(2)]
            known = [one[id_field] if id_field in one else one["registered_model"][id_field] for one in pair]
            async with asyncio.TaskGroup() as group:
                tried = [
                    group.create_task(renamed(client, rename, {id_field: one, "new_name": f"both {number}"}))
                    for one in known
                ]
            codes = sorted(str(task.result()) for task in tried)
            assert codes == ["None", "RESOURCE_ALREADY_EXISTS"]


async def renamed(client, path, said):
    async with client.post(f"/api/2.0/mlflow/{path}", json=said) as response:
        return (await response.json()).get("error_code")
