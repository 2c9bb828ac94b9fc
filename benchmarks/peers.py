"""StepStream beside its peers and its floor, one after the other on one PostgreSQL: `python -m benchmarks.peers`."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks import copy_floor, load, results
from benchmarks.servers import Postgres, Process, free_port

BATCH = 1000
WRITERS = 8


def main() -> None:
    """Measure all of them and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--log-workers", type=int, default=1)
    parser.add_argument("--mlflow-python", default=sys.executable, help="a Python that has the MLflow to measure")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    with tempfile.TemporaryDirectory() as scratch, Postgres(Path(scratch)) as postgres:
        floor = {}
        for indexed in (False, True):
            # The better of two and eight writers: more of them do not always help on few cores.
            tries = []
            for writers in (2, WRITERS):
                results.say(f"COPY, indexed: {indexed}, {writers} writers")
                database = postgres.fresh("copy_floor")
                tries.append(
                    asyncio.run(copy_floor.measure(database, indexed=indexed, seconds=seconds, writers=writers))
                )
            floor["indexed" if indexed else "unindexed"] = max(tries, key=lambda one: one["points_per_s"])
        results.say("MLflow")
        mlflow = _mlflow(arguments.mlflow_python, postgres, Path(scratch), seconds)
        results.say("FastTrackML")
        fasttrackml = _fasttrackml(postgres, Path(scratch), seconds)
        stepstream = load.measure(
            postgres,
            Path(scratch) / "stepstream",
            seconds,
            arguments.processes,
            arguments.workers,
            arguments.log_workers,
        )
    ours = stepstream["log_to_committed"]["points_per_s"]
    unindexed = floor["unindexed"]["points_per_s"]
    shapes = stepstream["server_only"]
    ratios = {
        "log_to_committed / mlflow": round(ours / mlflow["points_per_s"], 1),
        "log_to_committed / fasttrackml": round(ours / fasttrackml["points_per_s"], 1),
        "server_only 100x50 / copy unindexed": round(shapes["100x50"]["points_per_s"] / unindexed, 2),
        "server_only 100x500 / copy unindexed": round(shapes["100x500"]["points_per_s"] / unindexed, 2),
    }
    wanted = dict(zip(ratios, (1000, 100, 2, 5), strict=True))
    results.emit(
        copy=floor,
        mlflow=mlflow,
        fasttrackml=fasttrackml,
        stepstream=stepstream,
        ratios=ratios,
        reached={f"{name} >= {wanted[name]}": ratio >= wanted[name] for name, ratio in ratios.items()},
    )


def _mlflow(python: str, postgres: Postgres, scratch: Path, seconds: float) -> dict[str, Any]:
    """`mlflow server` with as many workers as it starts by default, and log-batch of 1000, its documented best."""
    postgres.fresh("mlflow")
    port = free_port()
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "4"]
    store = ["--backend-store-uri", postgres.by_tcp("mlflow"), "--default-artifact-root", str(scratch / "artifacts")]
    with Process([*command, *store], f"http://127.0.0.1:{port}", scratch / "mlflow.log") as server:
        return asyncio.run(log_batches(server.url + "/api/2.0/mlflow", seconds))


def _fasttrackml(postgres: Postgres, scratch: Path, seconds: float) -> dict[str, Any]:
    """`fml server` from PyPI's fasttrackml, on PostgreSQL."""
    postgres.fresh("fasttrackml")
    port = free_port()
    program = shutil.which("fml", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "fml"
    command = [program, "server", "--listen-address", f"127.0.0.1:{port}"]
    store = ["--database-uri", postgres.by_tcp("fasttrackml").replace("postgresql:", "postgres:") + "?sslmode=disable"]
    artifacts = ["--default-artifact-root", str(scratch / "fml-artifacts")]
    with Process([*command, *store, *artifacts], f"http://127.0.0.1:{port}", scratch / "fml.log") as server:
        return asyncio.run(log_batches(server.url + "/api/2.0/mlflow", seconds))


async def log_batches(api: str, seconds: float) -> dict[str, Any]:
    """Eight writers, each with a run of its own, log batches of 1000 metrics: 100 keys at 10 steps."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WRITERS)) as session:
        runs = [await _create_run(session, api) for _ in range(WRITERS)]
        warm_until = time.monotonic() + 2.0
        await asyncio.gather(*[_write(session, api, run, 0, warm_until) for run in runs])
        began = time.monotonic()
        counts = await asyncio.gather(*[_write(session, api, run, 10**6, began + seconds) for run in runs])
        elapsed = time.monotonic() - began
    return {"points_per_s": round(sum(counts) / elapsed), "seconds": round(elapsed, 2), "writers": WRITERS}


async def _create_run(session: aiohttp.ClientSession, api: str) -> str:
    body = {"experiment_id": "0", "start_time": int(time.time() * 1000)}
    async with session.post(f"{api}/runs/create", json=body) as response:
        response.raise_for_status()
        return str((await response.json(content_type=None))["run"]["info"]["run_id"])


async def _write(session: aiohttp.ClientSession, api: str, run_id: str, step: int, until: float) -> int:
    written = 0
    headers = {"Content-Type": "application/json"}
    while time.monotonic() < until:
        now = int(time.time() * 1000)
        metrics = [
            {"key": f"metric_{number % 100}", "value": number * 0.37, "timestamp": now, "step": step + number // 100}
            for number in range(BATCH)
        ]
        body = orjson.dumps({"run_id": run_id, "metrics": metrics, "params": [], "tags": []})
        async with session.post(f"{api}/runs/log-batch", data=body, headers=headers) as response:
            if response.status != 200:
                raise RuntimeError(f"log-batch answered {response.status}: {(await response.text())[:300]}")
        step += BATCH // 100
        written += BATCH
    return written


if __name__ == "__main__":
    main()
