import math

import msgpack
import numpy as np
import pytest

from stepstream_schema import paths
from stepstream_schema.attempt import Attempt
from tests.integration.app import RUN, frame, get, metrics, post, running, start

HISTORY = paths.run_history(RUN)


async def test_a_history_comes_back_in_full_sorted_by_step(database_url):
    async with running(database_url) as client:
        await post(client, frame(2, metrics({"a": [3.0, 4.0], "b": [0.0, 0.0]}, first_step=2)))
        await post(client, frame(1, start(), metrics({"a": [1.0, 2.0], "b": [0.0, 0.0]})))
        history = await get(client, HISTORY, key="a")
    assert (history["steps"], history["values"], history["count"]) == ([0, 1, 2, 3], [1.0, 2.0, 3.0, 4.0], 4)


async def test_every_bit_pattern_comes_back_as_msgpack_columns(database_url):
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, np.uint64(0x7FF8_0000_DEAD_BEEF).view(np.float64)]
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": values})))
        response = await client.get(HISTORY, params={"key": "a"}, headers={"Accept": "application/msgpack"})
        columns = msgpack.unpackb(await response.read())
        shown = await get(client, HISTORY, key="a")
    assert columns["values"] == np.array(values, "<f8").tobytes()
    assert np.frombuffer(columns["steps"], "<i8").tolist() == list(range(6))
    assert shown["values"][:3] == ["NaN", "Infinity", "-Infinity"]


async def test_a_thinned_history_keeps_its_ends_and_a_spike_of_one_step(database_url):
    values = [math.sin(step / 50) for step in range(5000)]
    values[3333] = 1000.0
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": values})))
        thin = await get(client, HISTORY, key="a", points=100)
    assert len(thin["steps"]) <= 110
    assert (thin["steps"][0], thin["steps"][-1], thin["count"]) == (0, 4999, 5000)
    assert thin["values"][thin["steps"].index(3333)] == 1000.0


async def test_a_range_of_steps_includes_both_ends(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": [float(n) for n in range(10)]}, first_step=-5)))
        assert (await get(client, HISTORY, key="a", start_step=-2, end_step=1))["steps"] == [-2, -1, 0, 1]


async def test_without_a_rank_each_step_shows_the_lowest_ranks_newest_attempt(database_url):
    async with running(database_url) as client:
        await post(
            client,
            frame(1, metrics({"a": [0.0, 0.0, 0.0]}), writer=1, rank=0),
            frame(1, metrics({"a": [9.0, 9.0]}, first_step=1), writer=2, rank=0, attempt=Attempt(0, 1, 0)),
            frame(1, metrics({"a": [5.0] * 5}), writer=3, rank=1),
        )
        shown = await get(client, HISTORY, key="a")
        first = await get(client, HISTORY, key="a", rank=0, attempt="0.0.0")
        of_rank_1 = await get(client, HISTORY, key="a", rank=1)
    assert shown["values"] == [0.0, 9.0, 9.0, 5.0, 5.0]
    assert first["values"] == [0.0, 0.0, 0.0]
    assert of_rank_1["values"] == [5.0] * 5


async def test_the_series_of_a_run_carry_their_summaries(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": [5.0, math.nan, 1.0], "n": [math.nan] * 3})))
        await post(client, frame(2, metrics({"a": [-2.0]}, first_step=1, time_ms=2000)))
        series = {one["key"]: one for one in (await get(client, paths.run_metrics(RUN)))["series"]}
    a, n = series["a"], series["n"]
    assert (a["count"], a["min"], a["max"], a["last"], a["last_step"]) == (4, -2.0, 5.0, 1.0, 2)
    assert (n["count"], n["min"], n["max"], n["last"]) == (3, "NaN", "NaN", "NaN")
    assert a["attempt"] == [0, 0, 0]


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (paths.run_history("f" * 32), {"key": "a"}, 404),
        (paths.run_history("no-run"), {"key": "a"}, 400),
        (HISTORY, {}, 400),
        (HISTORY, {"key": "a", "points": "0"}, 400),
        (HISTORY, {"key": "a", "rank": "first"}, 400),
        (HISTORY, {"key": "a", "attempt": "1"}, 400),
        (HISTORY, {"key": "a", "start_step": str(2**63)}, 400),
    ],
)
async def test_a_question_that_cannot_be_answered_gets_a_reason(database_url, path, query, status):
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0]})))
        response = await client.get(path, params=query)
        assert response.status == status
        assert (await response.json())["message"]
