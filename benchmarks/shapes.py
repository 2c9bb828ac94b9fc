"""Wide and narrow runs: `python -m benchmarks.shapes`. One JSON object.

Three series of millions of steps, thousands of series of hundreds of steps, hundreds of ranks: each is loaded at full
speed and compacted, then every point is counted by SQL and one metric is charted.
"""

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import numpy as np

from benchmarks import results
from benchmarks.servers import BenchmarkServer, Postgres
from stepstream_schema import batch, paths
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Record, Start

RUN = "ab" * 16
CONNECTIONS = 4


@dataclass(frozen=True)
class Shape:
    """One run."""

    keys: int
    steps: int
    ranks: int
    frame_steps: int


SHAPES = {
    "narrow: 3 series x 10 M steps": Shape(3, 10_000_000, 1, 20_000),
    "wide: 20,000 series x 500 steps": Shape(20_000, 500, 1, 10),
    "512 ranks x 100 keys x 200 steps": Shape(100, 200, 512, 50),
}


def main() -> None:
    """One after the other, each on a fresh database."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--timeout", type=float, default=300.0)
    arguments = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as scratch, Postgres(Path(scratch)) as postgres:
        for number, (name, shape) in enumerate(SHAPES.items()):
            results.say(name)
            database = postgres.fresh(f"shape_{number}")
            with BenchmarkServer(Path(scratch) / f"shape-{number}", database) as server:
                measured[name] = asyncio.run(_measure(server.url, database, shape, arguments.timeout))
    results.emit(shapes=measured, points_lost=sum(one["points"] - one["points_in_chunks"] for one in measured.values()))


async def _measure(url: str, database: str, shape: Shape, timeout_s: float) -> dict[str, Any]:
    points = shape.keys * shape.steps * shape.ranks
    connection = await asyncpg.connect(database)
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        gate = asyncio.Semaphore(CONNECTIONS)
        await asyncio.gather(*[_write(session, url, shape, rank, gate) for rank in range(shape.ranks)])
        logged = time.monotonic() - began
        while await connection.fetchval("SELECT EXISTS (SELECT 1 FROM frames)"):
            if time.monotonic() - began > timeout_s:
                raise RuntimeError("compaction did not finish")
            await asyncio.sleep(0.2)
        compacted = time.monotonic() - began
        # Ended, so that what is loose is tidied.
        async with session.post(url + paths.run(RUN) + "/finish", json={}) as response:
            response.raise_for_status()
        while await connection.fetchval("SELECT EXISTS (SELECT 1 FROM series WHERE loose_chunks > 1)"):
            await asyncio.sleep(0.2)
        tidied = time.monotonic() - began
        query = {"key": "layer.0.weight_norm", "buckets": 500}
        await _chart(session, url + paths.run_history(RUN), query)
        before = time.perf_counter()
        await _chart(session, url + paths.run_history(RUN), query)
        chart_ms = (time.perf_counter() - before) * 1000
    stored = await connection.fetchrow("SELECT sum(points)::bigint AS points, count(*) AS chunks FROM chunks")
    size = await connection.fetchval("SELECT pg_total_relation_size('chunks') + pg_total_relation_size('series')")
    await connection.close()
    return {
        "points": points,
        "points_in_chunks": stored["points"],
        "chunks": stored["chunks"],
        "acknowledged_s": round(logged, 1),
        "compacted_s": round(compacted, 1),
        "tidied_s": round(tidied, 1),
        "bytes_per_point": round(size / points, 2),
        "chart_ms": round(chart_ms, 1),
    }


async def _write(session: aiohttp.ClientSession, url: str, shape: Shape, rank: int, gate: asyncio.Semaphore) -> None:
    rng = np.random.default_rng(rank)
    names = tuple(f"layer.{number}.weight_norm" for number in range(shape.keys))
    for seq, first in enumerate(range(0, shape.steps, shape.frame_steps), 1):
        count = min(shape.frame_steps, shape.steps - first)
        record = Matrix(
            keys=names,
            steps=np.arange(first, first + count),
            times_ms=1_700_000_000_000 + 100 * np.arange(first, first + count) + rng.integers(-5, 6, count),
            values=rng.normal(size=(shape.keys, count)).astype(np.float32).astype(np.float64),
        )
        records: list[Record] = [record]
        if seq == 1:
            records.insert(0, Start(experiment="shapes", name="shape", time_ms=1))
        frame = wire.Frame(run_id=RUN, writer=rank + 1, seq=seq, rank=rank, attempt=Attempt(), records=tuple(records))
        data = wire.encode(frame)
        async with gate:
            await _send(session, url, data)


async def _send(session: aiohttp.ClientSession, url: str, data: bytes) -> None:
    while True:
        async with session.post(url + paths.FRAMES, data=batch.pack([data])) as response:
            if response.status not in (429, 503):
                answer = await response.json()
                if response.status != 200 or answer["stored"] != 1:
                    raise RuntimeError(f"the server answered {response.status}: {answer}")
                return
        await asyncio.sleep(float(response.headers.get("Retry-After", "1")))


async def _chart(session: aiohttp.ClientSession, url: str, query: dict[str, Any]) -> None:
    async with session.get(url, params=query) as response:
        response.raise_for_status()
        await response.read()


if __name__ == "__main__":
    main()
