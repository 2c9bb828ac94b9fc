"""Moving in from a MLflow database, killed half-way and resumed: `python -m benchmarks.importing`."""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
from tests.e2e.test_importing import MAKE

from benchmarks import results
from benchmarks.servers import BenchmarkServer, Postgres


def main() -> None:
    """Make the database, import half of it, and then all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--metrics", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    sizes = [str(one) for one in (arguments.runs, arguments.metrics, arguments.steps)]
    with tempfile.TemporaryDirectory() as scratch, Postgres(Path(scratch)) as postgres:
        uri = f"sqlite:///{scratch}/mlflow.db"
        results.say("making the source")
        environ = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.run([sys.executable, "-c", MAKE, uri, scratch, *sizes], check=True, env=environ)
        database = postgres.fresh("stepstream")
        with BenchmarkServer(Path(scratch) / "server", database) as server:
            command = [sys.executable, "-m", "stepstream.cli", "import", "mlflow", "--from", uri]
            command += ["--tracking-uri", server.url]
            began = time.monotonic()
            first = subprocess.Popen(command)
            while asyncio.run(_count(database, "SELECT count(*) FROM runs")) < arguments.runs // 2:
                time.sleep(0.1)
            first.kill()
            first.wait()
            killed = time.monotonic() - began
            results.say(f"killed after {killed:.0f} s")
            began = time.monotonic()
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            resumed = time.monotonic() - began
            runs = asyncio.run(_count(database, "SELECT count(*) FROM runs"))
            points = asyncio.run(_count(database, "SELECT count(*) FROM metric_points"))
    expected = arguments.runs * arguments.metrics * (arguments.steps + 1)
    results.emit(
        killed_after_s=round(killed, 1),
        resumed_for_s=round(resumed, 1),
        points_per_s=round(points / (killed + resumed)),
        runs=runs,
        points=points,
        said=said.strip(),
        reached={"every point once": points == expected, "every run": runs == arguments.runs},
    )


async def _count(database: str, sql: str) -> int:
    connection = await asyncpg.connect(database)
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
