"""The view metric_points, and the decoders in SQL below it."""

import math
import os
import random
import struct
from collections import Counter

import asyncpg
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepstream_ingest.compact import backlog
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.database import Database
from stepstream_schema import chunk
from stepstream_schema.attempt import Attempt
from stepstream_schema.points import Points, canonical
from stepstream_schema.records import Matrix, Ragged
from tests.integration.app import RUN, fetch, frame, post, running, start
from tests.integration.test_mlflow_metrics import call


def corpus() -> list[bytes]:
    rng, choose = np.random.default_rng(0), random.Random(0)
    words = [b"alpha", b"beta", b"gamma", b"delta", b"x"]
    planes = np.frombuffer(rng.normal(size=8192).astype("<f4").tobytes(), np.uint8).reshape(-1, 4).T
    return [
        b"",
        b"a",
        b"a" * 1000,
        bytes(range(256)) * 4,
        os.urandom(5000),
        b"hello world " * 500,
        rng.integers(90, 111, 8000).astype(np.uint8).tobytes(),
        (rng.normal(size=3000) * 5).astype(np.int8).tobytes(),
        planes.tobytes(),
        b"".join(choose.choice(words) for _ in range(20_000)),
        np.cumsum(rng.integers(0, 3, 30_000)).tobytes(),
    ]


@pytest.mark.parametrize("level", [1, 3, 9, 19])
async def test_zstd_is_decoded_in_sql(database_url, level):
    connection = await asyncpg.connect(database_url)
    for checksum, plain in enumerate(corpus()):
        packed = zstandard.ZstdCompressor(level=level, write_checksum=bool(checksum % 2)).compress(plain)
        assert await connection.fetchval("SELECT stepstream_zstd($1)", packed) == plain
    await connection.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    plain=st.binary(max_size=400) | st.lists(st.sampled_from([b"ab", b"\0\0", b"xyz"]), max_size=300).map(b"".join),
    level=st.sampled_from([-5, 1, 5, 19]),
)
async def test_any_bytes_that_zstd_packs_are_decoded_in_sql(database_url, plain, level):
    packed = zstandard.ZstdCompressor(level=level).compress(plain)
    assert (await fetch(database_url, "SELECT stepstream_zstd($1) AS plain", packed))[0]["plain"] == plain


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.floats(width=64)),
        min_size=1,
        max_size=40,
    ),
    narrow=st.booleans(),
)
async def test_any_chunk_is_decoded_in_sql(database_url, rows, narrow):
    values = np.array([row[2] for row in rows])
    if narrow:
        with np.errstate(over="ignore"):
            values = values.astype(np.float32).astype(np.float64)
    points = canonical(
        Points(steps=np.array([row[0] for row in rows]), times_ms=np.array([row[1] for row in rows]), values=values)
    )
    found = await fetch(database_url, "SELECT * FROM stepstream_chunk_points($1)", chunk.encode(points))
    assert [row["step"] for row in found] == points.steps.tolist()
    assert [row["time_ms"] for row in found] == points.times_ms.tolist()
    assert [_number(row["value"]) for row in found] == [_number(one) for one in points.values.tolist()]


async def test_the_view_shows_every_point_before_and_after_compaction(database_url, monkeypatch):
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)
    rng = np.random.default_rng(5)
    matrix = Matrix(
        keys=("loss", "été/ß", "k" * 250),
        steps=np.arange(500, dtype=np.int64),
        times_ms=1_700_000_000_000 + np.cumsum(rng.integers(90, 111, 500)),
        values=np.vstack([rng.normal(size=500), rng.normal(size=500).astype(np.float32), np.full(500, math.nan)]),
    )
    ragged = Ragged(
        keys=("a", "b"),
        counts=np.array([2, 3]),
        steps=np.array([5, 5, 1, 9, -7]),
        times_ms=np.array([1, 1, 2, 3, 4]),
        values=np.array([1.0, 1.0, -math.inf, 5e-324, 1.7976931348623157e308]),
    )
    expected = Counter(
        [
            (key, int(step), int(time), _number(value))
            for key, values in zip(matrix.keys, matrix.values, strict=True)
            for step, time, value in zip(matrix.steps, matrix.times_ms, values, strict=True)
        ]
        + [
            (key, int(step), int(time), _number(value))
            for key, step, time, value in zip("aabbb", ragged.steps, ragged.times_ms, ragged.values, strict=True)
        ]
    )
    database = Database(database_url)
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), matrix, ragged, rank=3, attempt=Attempt(1, 2, 3)))
        assert await _shown(database_url) == expected
        while await Compaction(database).round():
            pass
        assert await fetch(database_url, "SELECT 1 FROM frames") == []
        assert await _shown(database_url) == expected
    await database.close()


async def test_points_of_any_time_are_each_a_row_before_and_after_compaction(database_url, monkeypatch):
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)
    times = [-(2**63), -(2**63) + 1, -62135596800000, 0, 253402300799000, 2**63 - 2, 2**63 - 1]
    first, last = "0001-01-01 00:00:00+00", "9999-12-31 23:59:59+00"
    expected = sorted([first, first, first, "1970-01-01 00:00:00+00", last, last, last])
    expected += sorted(["1970-01-01 00:00:00+00", last, last, last])
    database = Database(database_url)
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), *[_at(time, value=1.0) for time in times]))
        for time in times[3:]:
            said = {"key": "b", "value": 1.0, "timestamp": time, "step": 0}
            await call(client, "runs/log-metric", run_id=RUN, **said)
        for compacted in (False, True):
            while compacted and await Compaction(database).round():
                pass
            assert bool(await fetch(database_url, "SELECT 1 FROM frames")) is not compacted
            rows = await fetch(
                database_url,
                "SELECT (time AT TIME ZONE 'UTC')::text || '+00' AS time FROM metric_points ORDER BY key, time",
            )
            assert [row["time"] for row in rows] == expected
    await database.close()


def _at(time_ms: int, value: float) -> Matrix:
    return Matrix(keys=("a",), steps=np.array([0]), times_ms=np.array([time_ms]), values=np.array([[value]]))


async def _shown(database_url: str) -> Counter:
    rows = await fetch(
        database_url,
        f"""SELECT key, rank, attempt, step, (extract(epoch FROM time) * 1000)::bigint AS time_ms, value
        FROM metric_points WHERE run_id = '{RUN}'""",
    )
    assert {(row["rank"], row["attempt"]) for row in rows} == {(3, "1.2.3")}
    return Counter((row["key"], row["step"], row["time_ms"], _number(row["value"])) for row in rows)


def _number(value: float) -> bytes:
    """Bits; a NaN's payload does not pass through SQL."""
    return b"nan" if math.isnan(value) else struct.pack("<d", value)
