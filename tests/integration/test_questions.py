"""Charts and aggregates: several series in one question, buckets, ranks, formats."""

import io
import threading

import msgpack
import numpy as np
import pyarrow
import pytest

from stepstream_ingest.compact import backlog
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.database import Database
from stepstream_ingest.mlflow import metrics as spoken
from stepstream_ingest.mlflow import paging
from stepstream_ingest.read import formats, history, layers, reader, routes, rows, view
from stepstream_schema import paths
from tests.integration.app import RUN, fetch, frame, get, metrics, post, running, start

HISTORY = paths.run_history(RUN)
OTHER = "cd" * 16


@pytest.fixture
async def compact(database_url, monkeypatch):
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)
    database = Database(database_url)

    async def all_of_it() -> None:
        while await Compaction(database).round():
            pass

    yield all_of_it
    await database.close()


async def ask(client, **body):
    response = await client.post(paths.HISTORY, json=body)
    assert response.status == 200, await response.text()
    return (await response.json())["series"]


async def test_several_runs_come_on_one_axis(database_url, compact):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0] * 100})))
        await post(client, frame(1, start(), metrics({"a": [2.0] * 50}, first_step=150), run_id=OTHER))
        for compacted in (False, True):
            if compacted:
                await compact()
            series = [{"run_id": RUN, "key": "a"}, {"run_id": OTHER, "key": "a"}, {"run_id": OTHER, "key": "none"}]
            found = await ask(client, series=series, buckets=20)
            assert [one["run_id"] for one in found] == [RUN, OTHER, OTHER]
            assert [one["count"] for one in found] == [100, 50, 0]
            assert found[0]["first_step"] == list(range(0, 100, 10))
            assert found[1]["first_step"] == list(range(150, 200, 10))
            assert set(found[0]["mean"]) == {1.0}
            assert set(found[1]["max"]) == {2.0}
            window = await ask(client, series=series[:1], start_step=20, end_step=29)
            assert window[0]["steps"] == list(range(20, 30))


async def test_a_chart_of_a_long_series_opens_no_body(database_url, compact):
    """Its buckets come from summaries alone: with the bodies gone they are the same."""
    rng = np.random.default_rng(2)
    async with running(database_url, compaction=False) as client:
        for number in range(10):
            values = rng.normal(size=8192)
            values[number * 7] = 1e6 * number
            await post(client, frame(number + 1, start(), metrics({"a": values.tolist()}, first_step=number * 8192)))
        await compact()
        before = [await get(client, HISTORY, key="a", buckets=buckets) for buckets in (8, 300)]
        await fetch(database_url, "UPDATE chunks SET body = NULL")
        after = [await get(client, HISTORY, key="a", buckets=buckets) for buckets in (8, 300)]
    assert after == before
    assert [len(one["counts"]) <= most for one, most in zip(before, (8, 300), strict=True)] == [True, True]
    for one in before:
        assert sum(one["counts"]) == 10 * 8192
        assert max(one["max"]) == 9e6
        assert 8192 * 9 + 63 in one["max_step"]


async def test_points_are_real_ones_and_keep_the_spike(database_url, compact):
    values = [float(step % 10) for step in range(20_000)]
    values[12_345] = -999.0
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": values})))
        await compact()
        thin = await get(client, HISTORY, key="a", points=100)
    assert len(thin["steps"]) <= 100
    assert thin["count"] == 20_000
    assert all(values[step] == value for step, value in zip(thin["steps"], thin["values"], strict=True))
    assert (12_345, -999.0) in zip(thin["steps"], thin["values"], strict=True)
    assert (thin["steps"][0], thin["steps"][-1]) == (0, 19_999)


async def test_aggregates_over_ranks_name_the_one_that_strays(database_url, compact):
    async with running(database_url, compaction=False) as client:
        for rank in range(8):
            values = [1.0 + 0.01 * rank] * 200
            if rank == 5:
                values[100:110] = [50.0] * 10
            await post(client, frame(1, metrics({"time": values}), writer=rank + 1, rank=rank))
        for compacted in (False, True):
            if compacted:
                await compact()
            found = await get(client, paths.run_ranks(RUN), key="time", buckets=20)
            assert found["ranks_seen"] == list(range(8))
            assert found["ranks"] == [8] * 20
            assert (found["outlier_rank"][10], found["max"][10]) == (5, 50.0)
            assert found["percentiles"]["p50"][10] == pytest.approx(1.04, abs=0.01)
            assert found["outlier_score"][10] > 100 * found["outlier_score"][0]


async def test_ranks_without_a_number_stand_beside_those_with_one(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, metrics({"a": [1.0]}), writer=1), frame(1, metrics({"a": [3.0]}), writer=2, rank=0))
        found = await get(client, paths.run_ranks(RUN), key="a")
        alone = await get(client, HISTORY, key="a", rank="none")
    assert found["ranks_seen"] == [None, 0]
    assert found["mean"] == [2.0]
    assert alone["values"] == [1.0]


async def test_arrow_and_msgpack_carry_the_same_columns(database_url, compact):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.5, float("nan"), 2.5], "b": [0.0] * 3})))
        await compact()
        for more in ({}, {"buckets": "2"}, {"points": "2"}):
            query = {"key": "a"} | more
            arrow = await client.get(HISTORY, params=query, headers={"Accept": paths.ARROW})
            table = pyarrow.ipc.open_stream(io.BytesIO(await arrow.read())).read_all()
            packed = await client.get(HISTORY, params=query, headers={"Accept": paths.MSGPACK})
            columns = {k: v for k, v in msgpack.unpackb(await packed.read()).items() if isinstance(v, bytes)}
            assert arrow.content_type == paths.ARROW
            assert set(table.column_names) == set(columns)
            for name, column in columns.items():
                kind = "<f8" if pyarrow.types.is_floating(table[name].type) else "<i8"
                np.testing.assert_array_equal(table[name].to_numpy(), np.frombuffer(column, kind))
        empty = await client.get(HISTORY, params={"key": "none"}, headers={"Accept": paths.ARROW})
        assert pyarrow.ipc.open_stream(io.BytesIO(await empty.read())).read_all().num_rows == 0
        refused = await client.post(
            paths.HISTORY, json={"series": [{"run_id": RUN, "key": "a"}]}, headers={"Accept": paths.ARROW}
        )
        assert (refused.status, (await refused.json())["error_code"]) == (406, "NOT_ACCEPTABLE")


async def test_an_answer_is_bounded_whatever_is_asked_together(database_url, compact, monkeypatch):
    monkeypatch.setattr(history, "MAX_ANSWER_BUCKETS", 100)
    monkeypatch.setattr(reader, "MAX_CHUNKS", 5)
    async with running(database_url, compaction=False) as client:
        for rank in range(8):
            values = {"a": [float(rank)] * 300}
            await post(client, frame(1, start(), metrics(values), writer=rank + 1, rank=rank))
        series = [{"run_id": RUN, "key": "a", "rank": rank} for rank in range(4)]
        for more in ({"buckets": 26}, {"points": 104}):
            refused = await client.post(paths.HISTORY, json={"series": series, **more})
            assert refused.status == 400
            assert "ask for 25 each" in (await refused.json())["message"]
        assert [len(one["counts"]) for one in await ask(client, series=series, buckets=25)] == [25] * 4
        # Over ranks the answer is one line: however many there are, it has as many buckets as they may take.
        assert (await get(client, paths.run_ranks(RUN), key="a", buckets=50))["ranks"] == [8] * 12
        await compact()
        for more in ({}, {"buckets": 10}):
            refused = await client.post(paths.HISTORY, json={"series": [{"run_id": RUN, "key": "a"}], **more})
            assert refused.status == 400
            assert "fewer series" in (await refused.json())["message"]
        assert (await ask(client, series=series))[3]["values"] == [3.0] * 300


async def test_points_are_decoded_merged_and_written_down_in_threads(database_url, compact, monkeypatch):
    """Of this process' event loop a question over millions of points takes next to nothing."""
    seen: dict[str, set[str]] = {}

    def spy(module, name):
        work = getattr(module, name)

        def noting(*args, **named):
            seen.setdefault(name, set()).add(threading.current_thread().name)
            return work(*args, **named)

        monkeypatch.setattr(module, name, noting)

    for module, name in (
        (rows, "described"),
        (rows, "opened"),
        (rows, "own_buckets"),
        (rows, "_of_key"),
        (layers, "clusters"),
        (layers, "seen"),
        (view, "of_points"),
        (view, "on_axis"),
        (formats, "_list"),
        (formats, "_bin"),
        (routes, "over_ranks"),
        (paging, "by_time"),
        (spoken, "_spoken"),
    ):
        spy(module, name)
    async with running(database_url, compaction=False) as client:
        for rank in (0, 1):
            values = metrics({"a": [1.0] * 8192, "b": [1.0] * 8192})
            await post(client, frame(1, start(), values, writer=rank + 1, rank=rank))
        await compact()
        for rank in (0, 1):
            await post(client, frame(2, metrics({"a": [2.0] * 100}, first_step=50), writer=rank + 1, rank=rank))
        for asked in ({}, {"buckets": "10"}, {"points": "50"}, {"buckets": "100"}):
            for kind in ("application/json", paths.MSGPACK, paths.ARROW):
                for key in "ab":
                    answer = await client.get(HISTORY, params={"key": key, **asked}, headers={"Accept": kind})
                    assert answer.status == 200
        await get(client, paths.run_ranks(RUN), key="a")
        for question in ("get-history", "get-history-bulk", "get-history-bulk-interval"):
            asked = {"run_id": RUN, "metric_key": "a"}
            assert (await get(client, f"/api/2.0/mlflow/metrics/{question}", **asked))["metrics"]
    assert set(seen) >= {"described", "opened", "own_buckets", "_of_key", "clusters", "seen", "of_points", "on_axis"}
    assert set(seen) >= {"_list", "_bin", "over_ranks", "by_time", "_spoken"}
    assert [name for name in set().union(*seen.values()) if not name.startswith("read")] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b"{", 400),
        (b'{"series": []}', 400),
        (b'{"series": ["a"]}', 400),
        (b'{"series": [{"run_id": "' + RUN.encode() + b'"}]}', 400),
        (b'{"series": [{"run_id": "' + b"f" * 32 + b'", "key": "a"}]}', 404),
        (b'{"series": [{"run_id": "' + RUN.encode() + b'", "key": "a"}], "buckets": 0}', 400),
        (b'{"series": [{"run_id": "' + RUN.encode() + b'", "key": "a"}], "buckets": 5, "points": 5}', 400),
        (b'{"series": [{"run_id": "' + RUN.encode() + b'", "key": "a"}], "buckets": 10000000}', 400),
    ],
)
async def test_a_question_that_cannot_be_answered_says_what_to_change(database_url, body, status):
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0]})))
        response = await client.post(paths.HISTORY, data=body)
        assert response.status == status
        assert (await response.json())["message"]
