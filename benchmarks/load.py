"""Rates of StepStream alone, as one JSON object: `python -m benchmarks.load`. Keys are explained in README.md."""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import results
from benchmarks.generate import log_in_processes, post_ready_frames
from benchmarks.servers import BenchmarkServer, Postgres

SHAPES = ((10, 10), (100, 50), (1000, 10), (100, 500))


def main() -> None:
    """Measure, one thing after the other, on one PostgreSQL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--log-workers", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Postgres(Path(scratch)) as postgres:
        measured = measure(
            postgres, Path(scratch), arguments.seconds, arguments.processes, arguments.workers, arguments.log_workers
        )
    results.emit(**measured)


def measure(
    postgres: Postgres, scratch: Path, seconds: float, processes: int, workers: int | None, log_workers: int
) -> dict[str, Any]:
    """log() in processes, then ready frames of every shape; each on a fresh database."""
    measured: dict[str, Any] = {"server_only": {}}
    lost = 0
    database = postgres.fresh("stepstream_log")
    with BenchmarkServer(scratch / "log", database, log_workers) as server:
        results.say(f"log() in {processes} processes")
        logged = log_in_processes(server.url, processes, seconds, 100)
    stored = asyncio.run(stored_points(database, logged["run_id"]))
    logged["points_stored"] = stored
    # The warm-up's points are stored too: everything logged, and not only what was timed, must be there.
    lost += abs(logged["points_logged"] - stored)
    logged["bytes_per_point"] = round(asyncio.run(table_bytes(database)) / max(1, stored), 2)
    measured["log_to_committed"] = logged
    for keys, steps in SHAPES:
        results.say(f"ready frames of {keys} x {steps}")
        database = postgres.fresh(f"stepstream_{keys}_{steps}")
        # Taking frames alone, as on a machine that leaves compaction to another; `sustained` measures both together.
        server_directory = scratch / f"frames-{keys}-{steps}"
        with BenchmarkServer(server_directory, database, workers, "--no-compaction") as server:
            shape = asyncio.run(post_ready_frames(server.url, keys, steps, seconds))
        points = asyncio.run(stored_points(database, shape["run_id"]))
        shape["bytes_per_point"] = round(asyncio.run(table_bytes(database)) / max(1, points), 2)
        shape["points_stored"] = points
        lost += abs(shape["points_acknowledged"] - points)
        measured["server_only"][f"{keys}x{steps}"] = shape
    measured["points_lost"] = lost
    return measured


async def stored_points(database: str, run_id: str) -> int:
    """Points of the run, by SQL."""
    connection = await asyncpg.connect(database)
    count = await connection.fetchval(
        """SELECT (SELECT coalesce(sum(points), 0) FROM frames WHERE run_id = $1::text::uuid)
            + (SELECT coalesce(sum(points), 0) FROM chunks WHERE run_id = $1::text::uuid)""",
        run_id,
    )
    await connection.close()
    return int(count)


async def table_bytes(database: str) -> int:
    """What points take on disk, indexes and TOAST included."""
    connection = await asyncpg.connect(database)
    size = await connection.fetchval(
        "SELECT pg_total_relation_size('frames') + pg_total_relation_size('chunks') + pg_total_relation_size('series')"
    )
    await connection.close()
    return int(size)


if __name__ == "__main__":
    main()
