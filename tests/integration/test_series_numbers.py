"""Numbers of series that a process remembers, when a run is removed and one of its name comes again."""

import contextlib

import pytest

from stepstream_ingest.compact import backlog, compactor
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.database import Database
from stepstream_ingest.errors import DatabaseAway
from stepstream_schema import paths
from tests.integration.app import RUN, fetch, frame, get, metrics, post, running, start
from tests.integration.test_mlflow_metrics import call

HISTORY = paths.run_history(RUN)


@pytest.fixture
async def processes(database_url, monkeypatch):
    """Two processes that compact."""
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)
    databases = [Database(database_url) for _ in range(2)]
    yield [Compaction(database) for database in databases]
    for database in databases:
        await database.close()


async def compact_all(compaction: Compaction) -> None:
    """As a server does, which goes on after a pass in which a run has vanished."""
    worked = True
    while worked:
        with contextlib.suppress(DatabaseAway):
            worked = await compaction.round()


async def remove(client) -> None:
    await client.delete(paths.run(RUN))
    assert (await (await client.post(paths.GC, json={})).json())["runs"] == 1


async def test_a_run_that_comes_again_has_each_value_under_its_own_key(database_url, processes):
    one, other = processes
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0], "b": [2.0]})))
        await compact_all(one)
        await remove(client)
        await post(client, frame(1, start(), metrics({"b": [20.0], "a": [10.0]}), writer=78))
        await compact_all(other)
        await post(client, frame(2, metrics({"a": [11.0], "b": [21.0]}, first_step=1), writer=78))
        await compact_all(one)
        assert await fetch(database_url, "SELECT FROM frames") == []
        found = {key: (await get(client, HISTORY, key=key))["values"] for key in "ab"}
        series = (await get(client, paths.run_metrics(RUN)))["series"]
    assert found == {"a": [10.0, 11.0], "b": [20.0, 21.0]}
    assert {each["key"]: (each["count"], each["last"]) for each in series} == {"a": (2, 11.0), "b": (2, 21.0)}


async def test_numbers_that_are_remembered_beside_those_of_now_are_not_taken_for_them(database_url, processes):
    one, other = processes
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0]})))
        await compact_all(one)
        await remove(client)
        await post(client, frame(1, start(), metrics({"b": [20.0]}), writer=78))
        await compact_all(other)
        await post(client, frame(2, metrics({"b": [21.0]}, first_step=1), writer=78))
        await compact_all(one)
        await post(client, frame(3, metrics({"a": [10.0]}), writer=78))
        await compact_all(one)
        assert await fetch(database_url, "SELECT FROM frames") == []
        found = {key: (await get(client, HISTORY, key=key))["values"] for key in "ab"}
    assert found == {"a": [10.0], "b": [20.0, 21.0]}


async def test_series_that_are_stored_in_several_statements_keep_their_keys(database_url, processes, monkeypatch):
    monkeypatch.setattr(compactor, "STORED_POINTS", 1)
    one, _ = processes
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0]})))
        await compact_all(one)
        await remove(client)
        await post(client, frame(1, start(), metrics({"a": [10.0, 11.0]}), writer=78))
        await post(client, frame(2, metrics({"b": [20.0]}), writer=78))
        await post(client, frame(3, metrics({"c": [30.0, 31.0, 32.0]}), writer=78))
        await compact_all(one)
        assert await fetch(database_url, "SELECT FROM frames") == []
        found = {key: (await get(client, HISTORY, key=key))["values"] for key in "abc"}
    assert found == {"a": [10.0, 11.0], "b": [20.0], "c": [30.0, 31.0, 32.0]}


async def test_a_run_that_comes_again_has_each_value_under_its_own_rank(database_url, processes):
    one, _ = processes
    async with running(database_url, compaction=False) as client:
        for rank in (0, 1):
            await post(client, frame(1, start(), metrics({"a": [float(rank)]}), writer=1 + rank, rank=rank))
            await compact_all(one)
        await remove(client)
        for rank in (1, 0):
            await post(client, frame(1, start(), metrics({"a": [10.0 + rank]}), writer=11 + rank, rank=rank))
            await compact_all(one)
        assert await fetch(database_url, "SELECT FROM frames") == []
        found = [(await get(client, HISTORY, key="a", rank=rank))["values"] for rank in (0, 1)]
    assert found == [[10.0], [11.0]]


async def test_points_of_a_run_that_comes_again_are_not_taken_for_those_of_another_key(database_url, processes):
    """By MLflow's protocol equal points are one: those that another key has are none of them."""
    one, other = processes

    async def log(client, **values: float) -> None:
        said = [{"key": key, "value": value, "timestamp": 1, "step": 0} for key, value in values.items()]
        await call(client, "runs/log-batch", run_id=RUN, metrics=said)

    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start()))
        await log(client, a=1.0, b=2.0)
        await compact_all(one)
        await remove(client)
        await post(client, frame(1, start(), writer=78))
        await log(client, b=5.0, a=6.0)
        await compact_all(other)
        await log(client, a=5.0)
        await compact_all(one)
        assert await fetch(database_url, "SELECT FROM frames") == []
        found = {key: (await get(client, HISTORY, key=key))["values"] for key in "ab"}
    assert found == {"a": [5.0, 6.0], "b": [5.0]}
