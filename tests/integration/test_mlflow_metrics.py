"""Metrics by MLflow's protocol: the same store, and equal points once."""

import asyncio
import itertools
import math
import random

import pytest

from stepstream_ingest.compact.compactor import Compactor
from stepstream_ingest.compact.tidier import Tidier
from stepstream_ingest.database import Database
from stepstream_ingest.mlflow import paging
from stepstream_schema import limits, paths
from tests.integration.app import RUN, fetch, frame, get, metrics, post, running

API = "/api/2.0/mlflow"


async def call(client, path, expected=200, **body):
    async with client.post(f"{API}/{path}", json=body) as response:
        assert response.status == expected, await response.text()
        return await response.json()


async def ask(client, path, expected=200, **query):
    async with client.get(f"{API}/{path}", params={key: str(value) for key, value in query.items()}) as response:
        assert response.status == expected, await response.text()
        return await response.json()


async def new_run(client) -> str:
    return (await call(client, "runs/create", experiment_id="0"))["run"]["info"]["run_id"]


def point(key, value, timestamp, step=0):
    return {"key": key, "value": value, "timestamp": timestamp, "step": step}


async def history(client, run_id, key="a"):
    found = await ask(client, "metrics/get-history", run_id=run_id, metric_key=key)
    return [(one["timestamp"], one["step"], one["value"]) for one in found.get("metrics", [])]


async def compact(database_url: str) -> None:
    database = Database(database_url)
    compactor, tidier = Compactor(database), Tidier(database)
    for group in (await compactor.backlog()).groups:
        assert await compactor.compact(group)
    for run_id, rank, attempt in await tidier.groups():
        await tidier.tidy(run_id, rank, attempt)
    await database.close()


async def test_what_is_logged_is_read_back_and_the_latest_value_is_by_step_time_and_value(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        await call(client, "runs/log-metric", run_id=run_id, **point("a", 1.5, 1000, 3))
        await call(client, "runs/log-metric", run_id=run_id, **point("a", "2.5", "2000", "-2"))
        await call(
            client, "runs/log-batch", run_id=run_id, metrics=[point("b", 1, 5), point("b", 7, 5), point("a", 9, 1)]
        )
        assert await history(client, run_id) == [(1, 0, 9.0), (1000, 3, 1.5), (2000, -2, 2.5)]
        run = await ask(client, "runs/get", run_id=run_id)
        latest = {one["key"]: (one["value"], one["step"]) for one in run["run"]["data"]["metrics"]}
        assert latest == {"a": (1.5, 3), "b": (7.0, 0)}


async def test_nan_and_infinities_come_back_as_mlflow_writes_them(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        said = [point("a", value, time) for time, value in enumerate(["NaN", "Infinity", "-Infinity", 1e308])]
        await call(client, "runs/log-batch", run_id=run_id, metrics=said)
        values = [value for _, _, value in await history(client, run_id)]
        assert values == ["NaN", 1.7976931348623157e308, -1.7976931348623157e308, 1e308]


@pytest.mark.parametrize("compacts", ["never", "between", "at the end", "both"])
async def test_equal_points_are_stored_once_wherever_they_are(database_url, compacts):
    rng = random.Random(compacts)
    values = ["NaN", 0.5, 1.0, -1.0]
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        logged: dict[str, set[tuple[int, int, object]]] = {"a": set(), "b": set()}
        for _ in range(6):
            batch = [
                point(rng.choice("ab"), rng.choice(values), rng.randrange(3), rng.randrange(4))
                for _ in range(rng.randrange(1, 30))
            ]
            await call(client, "runs/log-batch", run_id=run_id, metrics=batch)
            for one in batch:
                logged[one["key"]].add((one["timestamp"], one["step"], one["value"]))
            if compacts in ("between", "both") and rng.random() < 0.6:
                await compact(database_url)
        if compacts in ("at the end", "both"):
            await compact(database_url)
        for key, expected in logged.items():
            found = await history(client, run_id, key)
            assert len(found) == len(expected)
            assert set(found) == expected
            answer = await get(client, paths.run_history(run_id), key=key, buckets=3)
            assert answer["count"] == sum(answer["counts"]) == len(expected), answer
        rows = await fetch(database_url, "SELECT key, count(*) AS n FROM metric_points GROUP BY key ORDER BY key")
        assert [(row["key"], row["n"]) for row in rows] == [(key, len(own)) for key, own in sorted(logged.items())]
        if compacts in ("at the end", "both"):
            rows = await fetch(database_url, "SELECT key, points FROM series ORDER BY key")
            assert [(row["key"], row["points"]) for row in rows] == [(k, len(own)) for k, own in sorted(logged.items())]


async def test_equal_points_in_frames_are_never_merged_beside_those_of_the_protocol(database_url):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, metrics({"a": [1.0, 1.0]}, time_ms=7)), frame(2, metrics({"a": [1.0]}, time_ms=7)))
        for _ in range(2):
            await call(client, "runs/log-metric", run_id=RUN, **point("m", 1.0, 7))
        for _ in range(2):
            rows = await fetch(database_url, "SELECT key, count(*) AS n FROM metric_points GROUP BY key ORDER BY key")
            assert [(row["key"], row["n"]) for row in rows] == [("a", 3), ("m", 1)]
            await compact(database_url)


async def test_points_of_both_protocols_at_one_step_are_each_seen_once(database_url):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, metrics({"a": [1.0] * 300}, time_ms=7)))
        # Before, beside, equal to and after what a frame has at the step; one of them twice, one at a step of its own.
        said = [(5.0, 6), (5.0, 7), (1.0, 7), (5.0, 8), (5.0, 8)]
        for value, time_ms in said:
            await call(client, "runs/log-metric", run_id=RUN, **point("a", value, time_ms, step=3))
        await call(client, "runs/log-metric", run_id=RUN, **point("a", 9.0, 7, step=300))
        at_3 = [(6, 5.0), (7, 1.0), (7, 1.0), (7, 5.0), (8, 5.0)]
        for compacted in (False, True):
            if compacted:
                await compact(database_url)
                assert await fetch(database_url, "SELECT FROM frames") == []
            whole = await get(client, paths.run_history(RUN), key="a")
            window = await get(client, paths.run_history(RUN), key="a", start_step=3, end_step=3)
            buckets = await get(client, paths.run_history(RUN), key="a", buckets=10)
            assert (whole["count"], sum(buckets["counts"])) == (305, 305)
            assert list(zip(window["times_ms"], window["values"], strict=True)) == at_3
            assert whole["values"][:8] == [1.0, 1.0, 1.0, *[value for _, value in at_3]]
            assert whole["values"][-1] == 9.0
            assert sum(one[1] == 3 for one in await history(client, RUN)) == 5


async def test_a_writer_of_the_servers_own_is_refused_from_outside(database_url):
    async with running(database_url, compaction=False) as client:
        answer = await post(client, frame(1, metrics({"a": [1.0]}), writer=limits.FIRST_SERVED_WRITER))
        assert [one["code"] for one in answer["refused"]] == ["invalid"]
        assert await fetch(database_url, "SELECT FROM frames") == []


async def test_many_clients_that_log_into_one_run_lose_nothing(database_url):
    async with running(database_url) as client:
        run_id = await new_run(client)

        async def write(number):
            for step in range(20):
                batch = [point(f"k{key}", number, 1, step) for key in range(10)]
                params = [{"key": f"p{number}", "value": "x"}]
                await call(client, "runs/log-batch", run_id=run_id, metrics=batch, params=params)

        await asyncio.gather(*[write(number) for number in range(32)])
        counts = [len(await history(client, run_id, f"k{key}")) for key in range(10)]
        run = await ask(client, "runs/get", run_id=run_id)
    assert counts == [640] * 10
    assert len(run["run"]["data"]["params"]) == 32


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"metrics": [point("a", 1, 1)] * 1001}, "at most 1000 metrics"),
        ({"params": [{"key": f"p{n}", "value": "x"} for n in range(101)]}, "at most 100 params"),
        ({"metrics": [point("a", 1, 1)] * 950, "tags": [{"key": f"t{n}"} for n in range(60)]}, "params, and tags"),
        ({"params": [{"key": "p", "value": "x"}] * 2}, "Duplicate parameter keys"),
        ({"metrics": [{"key": "a", "timestamp": 1}]}, "metrics[0].value"),
        ({"metrics": [point("a", "high", 1)]}, "metrics[0].value"),
        ({"metrics": [point("a", True, 1)]}, "metrics[0].value"),
        ({"metrics": [point("", 1, 1)]}, "metrics[0].key"),
        ({"metrics": [point("a//b", 1, 1)]}, "metric name"),
        ({"metrics": [point("a" * 251, 1, 1)]}, "250"),
        ({"metrics": [point("a", 1, -1)]}, "timestamp"),
        ({"metrics": [point("a", 1, 1, 2**63)]}, "metrics[0].step"),
        ({"metrics": "a"}, "metrics"),
    ],
)
async def test_a_batch_is_checked_before_anything_of_it_is_stored(database_url, body, said):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        answer = await call(client, "runs/log-batch", 400, run_id=run_id, **body)
        assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
        assert said in answer["message"]
        run = (await ask(client, "runs/get", run_id=run_id))["run"]
        assert "metrics" not in run["data"]
        assert "params" not in run["data"]


async def test_params_do_not_change_and_nothing_is_written_to_deleted_runs(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        await call(client, "runs/log-parameter", run_id=run_id, key="p", value="1")
        await call(client, "runs/log-parameter", run_id=run_id, key="p", value="1")
        answer = await call(client, "runs/log-parameter", 400, run_id=run_id, key="p", value="2")
        assert "already logged with value='1'" in answer["message"]
        body = {"params": [{"key": "p", "value": "2"}, {"key": "q", "value": "3"}], "metrics": [point("a", 1, 1)]}
        await call(client, "runs/log-batch", 400, run_id=run_id, **body)
        run = (await ask(client, "runs/get", run_id=run_id))["run"]
        assert run["data"]["params"] == [{"key": "p", "value": "1"}]
        assert "metrics" not in run["data"]
        await call(client, "runs/delete", run_id=run_id)
        for path, said in (
            ("log-metric", point("a", 1, 1)),
            ("log-parameter", {"key": "x", "value": "y"}),
            ("set-tag", {"key": "x", "value": "y"}),
            ("update", {"status": "FINISHED"}),
        ):
            answer = await call(client, f"runs/{path}", 400, run_id=run_id, **said)
            assert "must be in the 'active' state" in answer["message"]
        await call(client, "runs/log-metric", 404, run_id="0" * 32, **point("a", 1, 1))


async def test_history_comes_in_pages_and_samples_keep_spikes(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        for first in range(0, 3000, 1000):
            batch = [point("a", 100.0 if step == 1234 else 1.0, step, step) for step in range(first, first + 1000)]
            await call(client, "runs/log-batch", run_id=run_id, metrics=batch)
        seen, token = [], ""
        while True:
            page = await ask(
                client, "metrics/get-history", run_id=run_id, metric_key="a", max_results=700, page_token=token
            )
            seen += [one["step"] for one in page["metrics"]]
            token = page.get("next_page_token", "")
            if not token:
                break
        assert seen == list(range(3000))
        sampled = await ask(client, "metrics/get-history-bulk-interval", run_ids=run_id, metric_key="a", max_results=50)
        steps = [one["step"] for one in sampled["metrics"]]
        assert len(steps) <= 50
        assert (steps[0], steps[-1]) == (0, 2999)
        assert max(one["value"] for one in sampled["metrics"]) == 100.0
        assert await ask(client, "metrics/get-history", run_id=run_id, metric_key="none") == {}
        await ask(client, "metrics/get-history", 400, run_id=run_id, metric_key="a", page_token="nonsense")


async def pages(client, run_id, size):
    token = None
    while token != "":
        said = {"max_results": size} | ({"page_token": token} if token else {})
        page = await ask(client, "metrics/get-history", run_id=run_id, metric_key="a", **said)
        yield [(one["timestamp"], one["step"], one["value"]) for one in page.get("metrics", [])]
        token = page.get("next_page_token", "")


@pytest.mark.parametrize("steps", [1, 5, 400])
@pytest.mark.parametrize("kept_s", [0.0, 10.0])
async def test_a_series_of_any_length_is_read_in_pages(database_url, monkeypatch, steps, kept_s):
    monkeypatch.setattr(paging, "MAX_ANSWER_POINTS", 300)
    monkeypatch.setattr(paging, "READ_AHEAD_POINTS", 90)
    monkeypatch.setattr(paging, "KEPT_S", kept_s)
    rng = random.Random(steps)
    said = {(time, rng.randrange(steps), float(rng.randrange(3))) for time in range(1, 1001)}
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        for third in range(3):
            batch = [point("a", value, time, step) for time, step, value in sorted(said) if time % 3 == third]
            await call(client, "runs/log-batch", run_id=run_id, metrics=batch)
            if third < 2:
                await compact(database_url)
        found = [page async for page in pages(client, run_id, 70)]
        assert {len(page) for page in found[:-1]} == {70}
        whole = list(itertools.chain(*found))
        assert whole == sorted(said, key=lambda one: (one[1], one[0], one[2]))
        answer = await ask(client, "metrics/get-history", 413, run_id=run_id, metric_key="a")
        assert "max_results" in answer["message"]
        bulk = await ask(client, "metrics/get-history-bulk", run_id=run_id, metric_key="a", max_results=100)
        assert [one["timestamp"] for one in bulk["metrics"]] == [one[0] for one in whole[:100]]
        # What comes in between, to steps that were passed, moves nothing.
        reader = pages(client, run_id, 70)
        first = await anext(reader)
        await call(client, "runs/log-metric", run_id=run_id, **point("a", 5, 5000, -1))
        rest = [page async for page in reader]
        assert list(itertools.chain(first, *rest)) == whole


@pytest.mark.parametrize("steps", ["rising", "the same", "one far away"])
async def test_a_sample_keeps_ends_and_spikes_however_the_steps_are_spread(database_url, steps):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        for first in range(0, 3000, 1000):
            batch = [
                point("a", 100.0 if time == 1234 else float(time % 7), time, time if steps == "rising" else 0)
                for time in range(first, first + 1000)
            ]
            await call(client, "runs/log-batch", run_id=run_id, metrics=batch)
            if first == 1000:
                await compact(database_url)
        if steps == "one far away":
            await call(client, "runs/log-metric", run_id=run_id, **point("a", 1, 3000, 2**62))
        for most in (1, 2, 3, 4, 50, 320, 2500):
            answer = await ask(
                client, "metrics/get-history-bulk-interval", run_ids=run_id, metric_key="a", max_results=most
            )
            times = [one["timestamp"] for one in answer["metrics"]]
            assert len(times) <= most
            assert times == sorted(times)
            assert times[-1] == (3000 if steps == "one far away" else 2999)
            if most > 1:
                assert times[0] == 0
            if most >= 50:
                assert len(times) > most / 4
                assert 1234 in times
        answer = await ask(
            client,
            "metrics/get-history-bulk-interval",
            run_ids=run_id,
            metric_key="a",
            max_results=9,
            start_step=0,
            end_step=0,
        )
        assert {one["step"] for one in answer["metrics"]} == {0}


async def test_a_latest_nan_gives_way_to_a_number_of_the_same_place(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        await call(
            client, "runs/log-batch", run_id=run_id, metrics=[point("a", math.pi, 5, 5), point("a", "NaN", 5, 5)]
        )
        run = await ask(client, "runs/get", run_id=run_id)
        assert run["run"]["data"]["metrics"][0]["value"] == math.pi


async def test_a_refused_batch_leaves_nothing_on_its_logged_models(database_url):
    async with running(database_url, compaction=False) as client:
        run_id, gone = await new_run(client), f"m-{'0' * 32}"
        model = (await call(client, "logged-models", experiment_id="0", name="net"))["model"]["info"]["model_id"]
        await call(client, "runs/log-parameter", run_id=run_id, key="p", value="1")
        measured = {"metrics": [point("a", 1, 1) | {"model_id": model}], "params": [{"key": "q", "value": "1"}]}
        changed = measured | {"params": [{"key": "p", "value": "2"}]}
        await call(client, "runs/log-batch", 400, run_id=run_id, **changed)
        both = [point("a", 1, 1) | {"model_id": one} for one in (model, gone)]
        await call(client, "runs/log-batch", 404, run_id=run_id, **measured | {"metrics": both})
        await call(client, "runs/log-batch", 404, run_id="0" * 32, **measured)
        assert "metrics" not in (await ask(client, f"logged-models/{model}"))["model"]["data"]
        data = (await ask(client, "runs/get", run_id=run_id))["run"]["data"]
        assert data["params"] == [{"key": "p", "value": "1"}]
        assert "metrics" not in data
        await call(client, "runs/log-batch", run_id=run_id, **measured)
        assert len((await ask(client, f"logged-models/{model}"))["model"]["data"]["metrics"]) == 1
