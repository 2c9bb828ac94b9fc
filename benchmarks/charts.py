"""How fast charts open, and what points take on disk: `python -m benchmarks.charts`. One JSON object.

A series of ten million points, a hundred runs in one chart, and a hundred keys logged together; beside them the same
points as rows of a table, one a point, in the same PostgreSQL and the same run.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import numpy as np

from benchmarks import results
from benchmarks.copy_floor import HEADER, ROW, TRAILER
from benchmarks.servers import BenchmarkServer, Postgres
from stepstream_schema import batch, paths
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Record, Start

FRAME_STEPS = 50_000
REPEATS = 15
COMPACT_TIMEOUT_S = 180


def main() -> None:
    """Load, wait for compaction, ask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=10_000_000, help="of the long series")
    parser.add_argument("--runs", type=int, default=100, help="in the comparison chart, 100,000 points each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Postgres(Path(scratch)) as postgres:
        database = postgres.fresh("stepstream_charts")
        rows = postgres.fresh("rows")
        with BenchmarkServer(Path(scratch) / "server", database) as server:
            measured = asyncio.run(_measure(server.url, database, rows, arguments.points, arguments.runs))
    results.emit(**measured)


async def _measure(url: str, database: str, rows: str, points: int, runs: int) -> dict[str, Any]:
    long, many, wide = "aa" * 16, [f"{number:032x}" for number in range(1, runs + 1)], "bb" * 16
    async with aiohttp.ClientSession() as session:
        results.say("100 keys together, for their size on disk")
        await _log(session, url, wide, 100, 80_000, frame_steps=500)
        await _compacted(database)
        before = await _sizes(database, "frames", "chunks", "series")
        bytes_per_point = before["chunks"] / 8_000_000
        with_series = (before["chunks"] + before["series"]) / 8_000_000
        results.say(f"a series of {points} points")
        await _log(session, url, long, 1, points)
        results.say(f"{runs} runs of 100,000 points")
        for run in many:
            await _log(session, url, run, 1, 100_000)
        await _compacted(database)
        row_table = await asyncpg.connect(rows)
        await _rows(row_table, points)
        row_bytes = await row_table.fetchval("SELECT pg_total_relation_size('points')") / points
        history = f"{url}{paths.run_history(long)}"
        key = "layer.0.weight_norm"
        start = points // 2
        window = {"start_step": start, "end_step": start + points // 100 - 1}
        whole_ms = await _median_ms(lambda: _get(session, history, key=key, buckets=1000))
        window_ms = await _median_ms(lambda: _get(session, history, key=key, buckets=1000, **window))
        asked = {"series": [{"run_id": run, "key": key} for run in many], "buckets": 1000}
        chart_ms = await _median_ms(lambda: _post(session, url + paths.HISTORY, asked))
        buckets = len((await _get(session, history, key=key, buckets=1000))["counts"])
        row_whole = await _median_ms(lambda: _row_buckets(row_table, 0, points), repeats=3)
        row_window = await _median_ms(lambda: _row_buckets(row_table, start, points // 100), repeats=REPEATS)
        await row_table.close()
    return {
        "long_series": {
            "points": points,
            "buckets": buckets,
            "whole_ms": whole_ms,
            "window_of_1_percent_ms": window_ms,
            "row_table_whole_ms": row_whole,
            "row_table_window_ms": row_window,
            "whole_ratio": round(row_whole / whole_ms, 1),
            "window_ratio": round(row_window / window_ms, 1),
        },
        "comparison": {"runs": runs, "points_each": 100_000, "ms": chart_ms},
        "disk": {
            "bytes_per_point": round(bytes_per_point, 2),
            "with_series_rows": round(with_series, 2),
            "row_table_bytes_per_point": round(row_bytes, 1),
            "ratio": round(row_bytes / bytes_per_point, 1),
        },
        "reached": {
            "10 M points in 1000 buckets <= 50 ms": whole_ms <= 50,
            "a window of 1 % <= 50 ms": window_ms <= 50,
            "row table >= 50 x slower": row_whole >= 50 * whole_ms,
            "comparison <= 300 ms": chart_ms <= 300,
            "bytes per point <= 6": with_series <= 6,
            "row table >= 15 x larger": row_bytes >= 15 * with_series,
        },
    }


async def _log(
    session: aiohttp.ClientSession, url: str, run_id: str, keys: int, steps: int, frame_steps: int = FRAME_STEPS
) -> None:
    """Float32 noise at regular steps and times jittered by 10 %."""
    rng = np.random.default_rng(UUID(run_id).int % 2**32)
    time_ms = 1_700_000_000_000
    names = tuple(f"layer.{number}.weight_norm" for number in range(keys))
    for seq, first in enumerate(range(0, steps, frame_steps), 1):
        count = min(frame_steps, steps - first)
        times = time_ms + np.cumsum(rng.integers(90, 111, count))
        time_ms = int(times[-1])
        values = rng.normal(size=(keys, count)).astype(np.float32).astype(np.float64)
        record = Matrix(keys=names, steps=np.arange(first, first + count), times_ms=times, values=values)
        records: list[Record] = [record]
        if seq == 1:
            records.insert(0, Start(experiment="charts", name="chart", time_ms=1))
        frame = wire.Frame(run_id=run_id, writer=1, seq=seq, rank=None, attempt=Attempt(), records=tuple(records))
        await _send(session, url, wire.encode(frame))


async def _send(session: aiohttp.ClientSession, url: str, data: bytes) -> None:
    while True:
        async with session.post(url + paths.FRAMES, data=batch.pack([data])) as response:
            if response.status in (429, 503):
                await asyncio.sleep(float(response.headers["Retry-After"]))
                continue
            answer = await response.json()
            if response.status != 200 or answer["stored"] != 1:
                raise RuntimeError(f"the server answered {response.status}: {answer}")
            return


async def _compacted(database: str) -> None:
    """Wait until every frame is in a chunk."""
    connection = await asyncpg.connect(database)
    deadline = time.monotonic() + COMPACT_TIMEOUT_S
    while await connection.fetchval("SELECT count(*) FROM frames"):
        if time.monotonic() > deadline:
            raise RuntimeError("compaction did not finish")
        await asyncio.sleep(0.5)
    await connection.close()


async def _sizes(database: str, *tables: str) -> dict[str, int]:
    connection = await asyncpg.connect(database)
    sizes = {table: int(await connection.fetchval("SELECT pg_total_relation_size($1)", table)) for table in tables}
    await connection.close()
    return sizes


async def _rows(connection: Any, points: int) -> None:
    """The same series as rows."""
    await connection.execute("CREATE TABLE points (series int4 NOT NULL, step int8 NOT NULL, time int8, value float8)")
    rng = np.random.default_rng(1)
    for first in range(0, points, 500_000):
        count = min(500_000, points - first)
        rows = np.zeros(count, ROW)
        rows["fields"], rows["series_size"] = 4, 4
        rows["step_size"] = rows["time_size"] = rows["value_size"] = 8
        rows["series"], rows["step"] = 1, np.arange(first, first + count)
        rows["time"] = 1_700_000_000_000 + rows["step"] * 100
        rows["value"] = rng.normal(size=count)

        async def source(rows: Any = rows) -> Any:
            yield HEADER + rows.tobytes() + TRAILER

        await connection.copy_to_table("points", source=source(), format="binary")
    await connection.execute("CREATE INDEX ON points (series, step)")
    await connection.execute("VACUUM ANALYZE points")


async def _row_buckets(connection: Any, start: int, count: int) -> None:
    found = await connection.fetch(
        "SELECT (step - $1) * 1000 / $2 AS bucket, min(value), max(value), avg(value), count(*), min(step), max(step) "
        "FROM points WHERE series = 1 AND step >= $1 AND step < $1 + $2 GROUP BY 1 ORDER BY 1",
        start,
        count,
    )
    assert len(found) == 1000


async def _get(session: aiohttp.ClientSession, url: str, **query: Any) -> Any:
    async with session.get(url, params=query) as response:
        response.raise_for_status()
        return await response.json()


async def _post(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body, headers={"Accept": paths.MSGPACK}) as response:
        response.raise_for_status()
        return await response.read()


async def _median_ms(ask: Callable[[], Awaitable[Any]], repeats: int = REPEATS) -> float:
    """Of several times, after one that warms the server."""
    await ask()
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        await ask()
        times.append((time.perf_counter() - before) * 1000)
    return round(results.percentile(times, 0.5), 1)


if __name__ == "__main__":
    main()
