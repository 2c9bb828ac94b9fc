"""MLflow's searches, on runs whose metrics are in frames, in chunks, and in both."""

import pytest

from stepstream_ingest.tracking.runs import PART
from tests.integration.app import fetch, running
from tests.integration.test_mlflow_metrics import ask, call, compact, point

RUNS = {
    # name: (loss, accuracy, rank, env)
    "a": (0.5, 5, "16", "prod"),
    "b": (0.2, "NaN", "4", "dev"),
    "c": (0.7, "Infinity", "8", None),
    "d": (None, "-Infinity", None, "prod"),
    "e": (0.5, 0.1, "", "Prod"),
}


@pytest.fixture(params=["frames", "chunks", "both"])
async def searched(request, database_url):
    async with running(database_url, compaction=False) as client:
        experiment = (await call(client, "experiments/create", name="x"))["experiment_id"]
        for start, (name, (loss, accuracy, rank, env)) in enumerate(RUNS.items()):
            said = {"experiment_id": experiment, "run_name": name, "start_time": start, "user_id": f"u{start}"}
            run_id = (await call(client, "runs/create", **said))["run"]["info"]["run_id"]
            # An older value that no search must see.
            await call(client, "runs/log-batch", run_id=run_id, metrics=[point("accuracy", 99, 1, -1)])
            if request.param == "both":
                await compact(database_url)
            metrics = [point("accuracy", accuracy, 1, 1)] + ([point("loss", loss, 1)] if loss is not None else [])
            params = [{"key": "rank", "value": rank}] if rank is not None else []
            tags = [{"key": "env", "value": env}] if env else []
            await call(client, "runs/log-batch", run_id=run_id, metrics=metrics, params=params, tags=tags)
        if request.param == "chunks":
            await compact(database_url)
            assert await fetch(database_url, "SELECT FROM frames") == []
        yield client, experiment


async def names(client, experiment, text="", order=(), **more):
    said = {"experiment_ids": [experiment], "filter": text, "order_by": list(order), **more}
    found = await call(client, "runs/search", **said)
    return "".join(run["info"]["run_name"] for run in found.get("runs", []))


async def test_filters_find_what_mlflow_would(searched):
    client, experiment = searched
    for text, expected in {
        "": "edcba",
        "metrics.loss < 0.6": "eba",
        "metrics.loss = 0.5 AND params.rank = '16'": "a",
        "metrics.loss != 0.5": "cb",
        "metrics.accuracy != 5": "edcb",
        "metrics.accuracy = 5": "a",
        "metrics.accuracy > 1e300": "c",
        "metrics.accuracy >= 1.7976931348623157e308": "c",
        "metrics.accuracy < 0": "d",
        "metrics.accuracy = 99": "",
        "metrics.none < 1": "",
        "params.rank != '16'": "ecb",
        "params.rank = ''": "e",
        "params.rank LIKE '1%'": "a",
        "params.rank IS NULL": "d",
        "params.rank IS NOT NULL AND tags.env IS NULL": "c",
        "tags.env = 'prod'": "da",
        "tags.env ILIKE 'PROD'": "eda",
        "tags.env LIKE 'Pr%'": "e",
        "tags.`mlflow.runName` = 'b'": "b",
        "run_name = 'c'": "c",
        "attributes.`Run name` = 'c'": "c",
        "start_time >= 3": "ed",
        "created < 1": "a",
        "end_time > 0": "",
        "user_id LIKE 'u%' AND status = 'RUNNING'": "edcba",
        "status != 'RUNNING'": "",
        "artifact_uri LIKE 'mlflow-artifacts:/%'": "edcba",
    }.items():
        assert await names(client, experiment, text) == expected, text


async def test_long_values_are_told_apart_by_all_their_characters(database_url):
    """Some are in an index by value, longer ones are not."""
    values = ["x" * 199, "x" * 200, "x" * 201, "x" * 300, "ж" * 150, "ж" * 200, "😀" * 201, "x" * 300 + "y"]
    async with running(database_url, compaction=False) as client:
        experiment = (await call(client, "experiments/create", name="x"))["experiment_id"]
        for number, value in enumerate(values):
            said = {"experiment_id": experiment, "run_name": str(number), "start_time": number}
            run_id = (await call(client, "runs/create", **said))["run"]["info"]["run_id"]
            kept = [{"key": "text", "value": value}]
            await call(client, "runs/log-batch", run_id=run_id, params=kept, tags=kept)
        for number, value in enumerate(values):
            for kind in ("params", "tags"):
                assert await names(client, experiment, f"{kind}.text = '{value}'") == str(number), (kind, value)


async def test_orders_put_missing_values_last_and_nan_before_them(searched):
    client, experiment = searched
    for order, expected in {
        ("metrics.accuracy",): "deacb",
        ("metrics.accuracy DESC",): "caedb",
        ("metrics.loss ASC", "start_time DESC"): "beacd",
        ("metrics.loss DESC", "start_time ASC"): "caebd",
        ("params.rank",): "eabcd",
        ("params.rank DESC",): "cbaed",
        ("tags.env", "start_time ASC"): "ebadc",
        ("attributes.start_time ASC",): "abcde",
        ("run_name DESC",): "edcba",
    }.items():
        assert await names(client, experiment, order=order) == expected, order


async def test_pages_follow_one_another_and_a_token_fits_its_question(searched):
    client, experiment = searched
    said = {"experiment_ids": [experiment], "max_results": 2, "order_by": ["run_name"]}
    seen, token = "", None
    while True:
        page = await call(client, "runs/search", **said, **({"page_token": token} if token else {}))
        seen += "".join(run["info"]["run_name"] for run in page["runs"])
        token = page.get("next_page_token")
        if token is None:
            break
        last = token
    assert seen == "abcde"
    await call(client, "runs/search", 400, **said | {"order_by": ["start_time"]}, page_token=last)


async def test_a_page_of_more_runs_than_are_read_at_a_time_has_all_of_them_in_order(database_url):
    many = 2 * PART + 3
    async with running(database_url) as client:
        experiment = (await call(client, "experiments/create", name="x"))["experiment_id"]
        await fetch(
            database_url,
            "INSERT INTO runs (run_id, experiment_id, name, start_time_ms) "
            "SELECT lpad(to_hex(n), 32, '0')::uuid, $1, n, n FROM generate_series(1, $2) AS n",
            int(experiment),
            many,
        )
        for limit in (PART, PART + 1, many):
            said = {"experiment_ids": [experiment], "order_by": ["start_time ASC"], "max_results": limit}
            page = await call(client, "runs/search", **said)
            assert [run["info"]["start_time"] for run in page["runs"]] == list(range(1, limit + 1))
            assert ("next_page_token" in page) == (limit < many)


@pytest.mark.parametrize(
    "said",
    [
        {"filter": "metrics.loss < 'high'"},
        {"filter": "params.rank < '3'"},
        {"filter": "params.rank = 3"},
        {"filter": "params.rank IN ('3')"},
        {"filter": "metrics.loss IS NULL"},
        {"filter": "METRICS.loss < 1"},
        {"filter": "lifecycle_stage = 'active'"},
        {"filter": "start_time > '3'"},
        {"filter": "datasets.size = 'x'"},
        {"order_by": ["metrics.a", "metrics.a DESC"]},
        {"order_by": ["datasets.name"]},
        {"order_by": ["`Run name`"]},
        {"max_results": 0},
        {"max_results": 50_001},
        {"experiment_ids": ["x"]},
        {"run_view_type": "SOME"},
    ],
)
async def test_what_cannot_be_meant_is_refused(database_url, said):
    async with running(database_url, compaction=False) as client:
        answer = await call(client, "runs/search", 400, **{"experiment_ids": ["0"], **said})
        assert answer["error_code"] == "INVALID_PARAMETER_VALUE"


async def test_deleted_runs_and_datasets_are_found_when_asked_for(database_url):
    async with running(database_url, compaction=False) as client:
        ids = {}
        for name in "ab":
            made = await call(client, "runs/create", experiment_id="0", run_name=name)
            ids[name] = made["run"]["info"]["run_id"]
        dataset = {"name": "ds", "digest": "d1", "source_type": "local", "source": "x"}
        tags = [{"key": "mlflow.data.context", "value": "training"}]
        await call(client, "runs/log-inputs", run_id=ids["a"], datasets=[{"dataset": dataset, "tags": tags}])
        assert await names(client, "0", "datasets.name = 'ds' AND dataset.context IN ('training')") == "a"
        assert await names(client, "0", "datasets.context = 'eval'") == ""
        await call(client, "runs/delete", run_id=ids["a"])
        assert await names(client, "0") == "b"
        assert await names(client, "0", run_view_type="DELETED_ONLY") == "a"
        assert await names(client, "0", run_view_type="ALL", order=["run_name"]) == "ab"
        run = (await ask(client, "runs/get", run_id=ids["a"]))["run"]
        assert run["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "ds"
        await call(client, "runs/restore", run_id=ids["a"])
        assert await names(client, "0", order=["run_name"]) == "ab"


async def test_experiments_are_made_found_renamed_deleted_and_restored(database_url):
    async with running(database_url, compaction=False) as client:
        first = (await call(client, "experiments/create", name="alpha", tags=[{"key": "k", "value": "v"}]))[
            "experiment_id"
        ]
        second = (await call(client, "experiments/create", name="Beta"))["experiment_id"]

        async def found(text="", **more):
            answer = await call(client, "experiments/search", filter=text, max_results=100, **more)
            return [one["name"] for one in answer.get("experiments", [])]

        assert sorted(await found()) == ["Beta", "Default", "alpha"]
        assert await found("name LIKE 'al%'") == await found("tags.k = 'v'") == ["alpha"]
        assert await found("name ILIKE 'be%'") == await found(f"experiment_id = '{second}'") == ["Beta"]
        assert await found("tags.k IS NULL", order_by=["name ASC"]) == ["Beta", "Default"]
        assert await found(order_by=["name DESC"]) == ["alpha", "Default", "Beta"]
        assert (await call(client, "experiments/create", 400, name="alpha"))["error_code"] == "RESOURCE_ALREADY_EXISTS"
        await call(client, "experiments/update", experiment_id=first, new_name="gamma")
        assert (await ask(client, "experiments/get-by-name", experiment_name="gamma"))["experiment"][
            "experiment_id"
        ] == first
        run_id = (await call(client, "runs/create", experiment_id=first))["run"]["info"]["run_id"]
        await call(client, "experiments/delete", experiment_id=first)
        assert (await call(client, "experiments/delete", 404, experiment_id=first))["error_code"]
        assert await found(view_type="DELETED_ONLY") == ["gamma"]
        assert (await ask(client, "runs/get", run_id=run_id))["run"]["info"]["lifecycle_stage"] == "deleted"
        await call(client, "runs/create", 400, experiment_id=first)
        await call(client, "experiments/restore", experiment_id=first)
        assert (await ask(client, "runs/get", run_id=run_id))["run"]["info"]["lifecycle_stage"] == "active"
        await call(client, "experiments/search", 400)
        await ask(client, "experiments/get", 404, experiment_id="999")
        await ask(client, "experiments/get", 400, experiment_id="x")
        await call(client, "traces/search", 501)
