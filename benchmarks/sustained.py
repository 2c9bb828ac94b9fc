"""Whether the rate holds: `python -m benchmarks.sustained`. One JSON object.

Ready frames of 100 keys x 50 steps at full speed, first for a while without compaction, then for minutes with it; the
tables and the backlog are looked at every few seconds.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import results
from benchmarks.generate import post_ready_frames
from benchmarks.servers import BenchmarkServer, Postgres

KEYS, STEPS = 100, 50
LOOK_S = 5.0
BYTES_PER_POINT = 6
FREE_BYTES = 8 * 2**30
"""The load ends early rather than fill the disk."""
LIKELY_POINTS_PER_S = 12_000_000


def main() -> None:
    """Without compaction, then with it, each on a database of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--baseline-seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Postgres(Path(scratch)) as postgres:
        room = (shutil.disk_usage(scratch).free - FREE_BYTES) / BYTES_PER_POINT / LIKELY_POINTS_PER_S
        seconds = min(arguments.seconds, room)
        results.say("without compaction")
        database = postgres.fresh("baseline")
        with BenchmarkServer(Path(scratch) / "baseline", database, arguments.workers, "--no-compaction") as server:
            baseline = asyncio.run(post_ready_frames(server.url, KEYS, STEPS, arguments.baseline_seconds))
        postgres.fresh("baseline")
        results.say(f"with compaction, {seconds:.0f} s")
        database = postgres.fresh("sustained")
        with BenchmarkServer(Path(scratch) / "sustained", database, arguments.workers) as server:
            sustained, looks = asyncio.run(_watched(server.url, database, seconds))
    minutes = sustained["points_per_s_by_minute"]
    later = looks[len(looks) // 5 :]
    results.emit(
        seconds=round(seconds),
        without_compaction=baseline,
        with_compaction=sustained,
        tables=looks[:: max(1, len(looks) // 30)],
        ratio_to_without=round(sustained["points_per_s"] / baseline["points_per_s"], 3),
        ratio_of_last_minute_to_first=round(minutes[-1] / minutes[0], 3),
        reached={
            "last minute >= 0.9 x the first": minutes[-1] >= 0.9 * minutes[0],
            "backlog flat: never 2 x its median after the first fifth": max(one["backlog_frames"] for one in later)
            <= 2 * results.percentile([one["backlog_frames"] for one in later], 0.5),
            "level 0 flat: never 1.5 x its median after the first fifth": max(one["frames_mb"] for one in later)
            <= 1.5 * results.percentile([one["frames_mb"] for one in later], 0.5),
            "rate >= 60 % of that without compaction": sustained["points_per_s"] >= 0.6 * baseline["points_per_s"],
        },
    )


async def _watched(url: str, database: str, seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    looks: list[dict[str, Any]] = []
    watching = asyncio.create_task(_look(database, looks))
    sustained = await post_ready_frames(url, KEYS, STEPS, seconds)
    watching.cancel()
    return sustained, looks


async def _look(database: str, looks: list[dict[str, Any]]) -> None:
    connection = await asyncpg.connect(database)
    began = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_S)
        row = await connection.fetchrow(
            """SELECT (SELECT count(*) FROM frames) AS backlog_frames,
                pg_total_relation_size('frames') / 1000000 AS frames_mb,
                pg_total_relation_size('chunks') / 1000000 AS chunks_mb,
                pg_total_relation_size('series') / 1000000 AS series_mb"""
        )
        looks.append({"s": round(time.monotonic() - began)} | dict(row))


if __name__ == "__main__":
    main()
