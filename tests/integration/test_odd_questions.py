"""Questions nobody would ask, about values and steps nobody would log: an answer that is right, or words."""

import json
import math

import numpy as np
import pytest
from yarl import URL

from stepstream_ingest.compact import backlog
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.database import Database
from stepstream_schema import paths
from stepstream_schema.records import Matrix
from tests.integration.app import RUN, fetch, frame, get, post, running, start

HISTORY = paths.run_history(RUN)
RANKS = paths.run_ranks(RUN)
LAST, FIRST = 2**63 - 1, -(2**63)
NAN, INF = math.nan, math.inf
SERIES = {
    "ends": ([FIRST, -1, 0, 1, LAST], [1.0, 2.0, 3.0, 4.0, 5.0]),
    "nans": ([0, 1, 2], [NAN] * 3),
    "nan and inf": ([0, 1], [NAN, INF]),
    "nan and -inf": ([0, 1], [NAN, -INF]),
    "no number is finite": ([0, 1, 2], [INF, -INF, NAN]),
    "one": ([5], [1.0]),
    "the last": ([LAST], [1.0]),
    "the first": ([FIRST], [1.0]),
    "one step": ([3] * 500, [float(n) for n in range(500)]),
    "huge": ([0, 1, 2, 3], [1.7e308] * 3 + [-1.7e308]),
    "gaps": (list(range(1000)), [float(n) if n % 3 else NAN for n in range(1000)]),
}


@pytest.fixture
async def odd(database_url, monkeypatch):
    """A server with such series, of three ranks, and what compacts them."""
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)
    database = Database(database_url)

    async def compact() -> None:
        while await Compaction(database).round():
            pass
        assert await fetch(database_url, "SELECT FROM frames") == []

    async with running(database_url, compaction=False) as client:
        records = [
            Matrix(keys=(key,), steps=np.array(steps), times_ms=np.array(steps) * 0, values=np.array([values]))
            for key, (steps, values) in SERIES.items()
        ]
        for rank in range(3):
            await post(client, frame(1, start(), *records, rank=rank, writer=10 + rank))
        yield client, compact
    await database.close()


def numbers(said) -> list[float]:
    return [float(one) for one in said]


async def test_series_of_odd_values_are_summarised_rightly_before_and_after_compaction(odd):
    client, compact = odd
    for compacted in (False, True):
        if compacted:
            await compact()
        for key, (steps, values) in SERIES.items():
            told = [value for value in values if not math.isnan(value)]
            whole = await get(client, HISTORY, key=key)
            assert whole["steps"] == steps
            np.testing.assert_array_equal(numbers(whole["values"]), values)
            for count in (1, 2, 7, 10_000):
                found = await get(client, HISTORY, key=key, buckets=count)
                assert len(found["counts"]) <= count
                assert sum(found["counts"]) == found["count"] == len(values)
                assert (found["first_step"][0], found["last_step"][-1]) == (steps[0], steps[-1])
                low, high = np.fmin.reduce(numbers(found["min"])), np.fmax.reduce(numbers(found["max"]))
                np.testing.assert_array_equal([low, high], [min(told), max(told)] if told else [NAN, NAN])
            thin = await get(client, HISTORY, key=key, points=4)
            assert thin["count"] == len(values)
            assert (thin["steps"][0], thin["steps"][-1]) == (steps[0], steps[-1])
            assert not told or {min(told), max(told)} <= set(numbers(thin["values"]))
            over = await get(client, RANKS, key=key, buckets=1)
            assert over["ranks_seen"] == [0, 1, 2]
            np.testing.assert_array_equal(
                numbers(over["min"] + over["max"]), [min(told), max(told)] if told else [NAN, NAN]
            )
            assert over["ranks"] == [3 if any(map(math.isfinite, values)) and key != "huge" else 0]
        (series,) = [
            one for one in (await get(client, paths.run_metrics(RUN)))["series"] if one["key"] == "nan and inf"
        ][:1]
        assert (series["min"], series["max"]) == ("Infinity", "Infinity")


@pytest.mark.parametrize(
    "query",
    [
        {"start_step": FIRST, "end_step": LAST, "buckets": 10},
        {"start_step": LAST},
        {"end_step": FIRST},
        {"start_step": 5, "end_step": 1},
        {"start_step": 5, "end_step": 1, "buckets": 3},
        {"start_step": FIRST, "end_step": FIRST, "points": 3},
        {"start_step": LAST, "buckets": 3},
    ],
)
async def test_steps_at_the_ends_of_all_there_are_can_be_asked_for(odd, query):
    client, compact = odd
    steps, _ = SERIES["ends"]
    inside = [one for one in steps if query.get("start_step", FIRST) <= one <= query.get("end_step", LAST)]
    for compacted in (False, True):
        if compacted:
            await compact()
        assert (await get(client, HISTORY, key="ends", **query))["count"] == len(inside)


@pytest.mark.parametrize("name", ["rank", "attempt", "start_step", "end_step", "buckets", "points"])
async def test_a_parameter_of_any_text_is_taken_or_refused_in_words(odd, name):
    client, _ = odd
    texts = ["", "-1", "0", "1", "x", "NaN", "1e3", "1.5", "%00", "%ff", "%C3%28", "9" * 30, "9" * 5000, "-" + "9" * 30]
    texts += [str(LAST + 1), str(FIRST - 1), "10000000000", "1_000", "%D9%A3", "None", "true", "1000000000", "0x10"]
    for path in (HISTORY, RANKS):
        for text in texts:
            await taken_or_refused(client, f"{path}?key=ends&{name}={text}")
        assert "no 'start'" in await taken_or_refused(client, f"{path}?key=ends&start=1")
        twice = await taken_or_refused(client, f"{path}?key=ends&{name}=1&{name}=2")
        assert "twice" in twice or (path == RANKS and "there is no" in twice)
    for text in ("1_000", "%D9%A3", "10000000000000000000000"):
        assert await taken_or_refused(client, f"{HISTORY}?key=ends&{name}={text}")
    assert "int32" in await taken_or_refused(client, f"{HISTORY}?key=ends&rank=10000000000")
    assert "buckets" in await taken_or_refused(client, f"{RANKS}?key=ends&points=10")


async def test_a_key_and_a_run_of_any_text_are_taken_or_refused_in_words(odd):
    client, _ = odd
    for text in ("%00", "%ff", "k" * 7000, "", "a&key=b", "%F0%9F%98%80"):
        for path in (HISTORY, RANKS):
            await taken_or_refused(client, f"{path}?key={text}")
    for run in ("%00", "%ff", "x" * 2000, "0" * 31, "0" * 32, "-" * 10):
        for path in ("metrics", "metrics/history?key=a", "metrics/ranks?key=a"):
            assert await taken_or_refused(client, f"/v1/runs/{run}/{path}")


async def test_a_body_of_any_values_is_taken_or_refused_in_words(odd):
    client, _ = odd
    values = [None, 0, -1, 1, 1.5, True, "", "x", [], {}, [1], 10**30, -(10**30), LAST, FIRST, 1e308, "\0", {"a": 1}]
    of_series, of_all = ("run_id", "key", "rank", "attempt"), ("start_step", "end_step", "buckets", "points", "series")
    one = {"run_id": RUN, "key": "ends"}
    bodies = [{"series": [one | {name: value}]} for value in values for name in of_series]
    bodies += [{"series": [one]} | {name: value} for value in values for name in of_all]
    bodies.append({"series": [{"run_id": RUN, "key": "k" * 10_000}]})
    bodies.append({"series": [{"run_id": RUN, "key": f"k{n}"} for n in range(1000)], "buckets": 10})
    bodies.append({"series": [{"run_id": RUN, "key": f"k{n}"} for n in range(1001)]})
    for body in bodies:
        async with client.post(paths.HISTORY, data=json.dumps(body)) as answer:
            said = await answer.json()
            assert answer.status == 200 or (answer.status == 400 and said["message"]), (body, said)


async def taken_or_refused(client, url: str) -> str:
    """What a refusal says; nothing where there is an answer."""
    async with client.session.get(URL(str(client.make_url("/")).rstrip("/") + url, encoded=True)) as answer:
        said = await answer.json()
    if answer.status == 200:
        return ""
    assert answer.status in (400, 404), (url[:200], said)
    assert said["message"]
    return str(said["message"])
