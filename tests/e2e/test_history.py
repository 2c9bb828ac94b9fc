"""Reading back what was logged, with the SDK, as a table."""

import asyncio

import numpy as np
import pyarrow
import pytest

import stepstream
from stepstream.table import of_runs
from stepstream.tracking import MlflowClient
from stepstream_ingest.read import history as server_side
from stepstream_schema import paths
from stepstream_schema.records import Matrix
from tests.integration.app import frame, post, running


async def test_history_is_a_table_of_what_was_logged(server_factory, tmp_path):
    server = server_factory()
    run = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path)
    for step in range(300):
        run.log({"loss": 1 / (step + 1), "lr": 0.1}, step=step)
    assert await asyncio.to_thread(run.flush, 30)
    loss = await asyncio.to_thread(run.history, ["loss"])
    assert loss["step"].tolist() == list(range(300))
    assert loss["value"].tolist() == [1 / (step + 1) for step in range(300)]
    assert "UTC" in str(loss["time"].dtype)
    both = await asyncio.to_thread(run.history)
    assert both.groupby("key")["value"].count().to_dict() == {"loss": 300, "lr": 300}
    window = await asyncio.to_thread(lambda: run.history(["loss"], start_step=10, end_step=19))
    assert window["step"].tolist() == list(range(10, 20))
    thin = await asyncio.to_thread(lambda: run.history(["loss"], buckets=10))
    assert (len(thin), thin["counts"].sum(), thin["max"].max()) == (10, 300, 1.0)
    with pytest.raises(stepstream.QueryError, match="must lie between"):
        await asyncio.to_thread(lambda: run.history(["loss"], buckets=-1))
    await asyncio.to_thread(run.finish)


async def test_a_history_that_is_too_large_for_one_answer_comes_in_parts(database_url, tmp_path, monkeypatch):
    monkeypatch.setattr(server_side, "MAX_ANSWER_POINTS", 100)
    async with running(database_url) as client:
        uri = str(client.make_url("")).rstrip("/")
        run = await asyncio.to_thread(lambda: stepstream.start_run(tracking_uri=uri, spool_dir=tmp_path))
        for step in range(1000):
            run.log({"loss": float(step)}, step=step)
        assert await asyncio.to_thread(run.flush, 30)
        refused = await client.get(paths.run_history(run.run_id), params={"key": "loss"})
        assert refused.status == 413
        assert "buckets" in (await refused.json())["message"]
        loss = await asyncio.to_thread(run.history, ["loss"])
        assert loss["value"].tolist() == [float(step) for step in range(1000)]
        points = await asyncio.to_thread(lambda: MlflowClient(uri).get_metric_history(run.run_id, "loss"))
        assert [(point.step, point.value) for point in points] == [(step, float(step)) for step in range(1000)]
        arrow = await client.get(paths.run_history(run.run_id), params={"key": "loss"}, headers={"Accept": paths.ARROW})
        table = pyarrow.ipc.open_stream(await arrow.read()).read_all()
        assert np.array_equal(table["values"].to_numpy(), np.arange(1000.0))
        await asyncio.to_thread(run.finish)


async def test_without_a_server_history_says_so(tmp_path):
    run = stepstream.start_run(tracking_uri="http://127.0.0.1:9", spool_dir=tmp_path, finish_timeout=0.1)
    with pytest.raises(stepstream.QueryError, match="STEPSTREAM_TRACKING_URI"):
        await asyncio.to_thread(run.history)
    await asyncio.to_thread(run.finish)


async def test_a_time_that_pandas_cannot_say_costs_no_row(database_url, tmp_path):
    async with running(database_url) as client:
        uri = str(client.make_url("")).rstrip("/")
        run = await asyncio.to_thread(lambda: stepstream.start_run(tracking_uri=uri, spool_dir=tmp_path))
        times = np.array([1000, 2**63 - 1, -(2**63), -(2**62)])
        record = Matrix(keys=("a",), steps=np.arange(4), times_ms=times, values=np.arange(4.0)[None])
        await post(client, frame(1, record, run_id=run.run_id))
        await asyncio.to_thread(run.finish)
        path = f"{paths.run(run.run_id)}/finish"
        assert (await client.post(path, json={"end_time_ms": 2**63 - 1})).status == 200
        table = await asyncio.to_thread(run.history, ["a"])
        runs = of_runs([await asyncio.to_thread(lambda: MlflowClient(uri).get_run(run.run_id))])
    assert table["value"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert table["time"].isna().tolist() == [False, True, True, True]
    assert table["time"][0].timestamp() == 1.0
    assert runs["end_time"].isna().tolist() == [True]
    assert runs["start_time"].isna().tolist() == [False]
