"""MLflow's protocol beside MLflow's own server, on one PostgreSQL: `python -m benchmarks.mlflow_api`."""

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import numpy as np
import orjson
import uvloop

from benchmarks import results
from benchmarks.http_load import post_all
from benchmarks.servers import BenchmarkServer, Postgres, Process, free_port
from stepstream_ingest.compact.tidier import LOOSE
from stepstream_schema import batch, paths
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Params, Start
from stepstream_schema.sql import queries

WRITERS = 8
BATCH = 1000
KEYS = 100
WARM_UP_S = 2.0
SEARCH = {
    "experiment_ids": ["1"],
    "filter": "metrics.metric_3 < 0.5 AND params.param_4 = '7'",
    "order_by": ["metrics.metric_1 ASC"],
    "max_results": 100,
}
WANTED = {"log_batch": 100, "log_metric": 10, "search_runs": 20}
SEARCH_MS = 50
START_MS = 1_700_000_000_000


def main() -> None:
    """Measure both and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load, server and round")
    parser.add_argument("--rounds", type=int, default=2, help="how often each server has its turn")
    parser.add_argument("--runs", type=int, default=20_000, help="that are searched, of 20 metrics and 20 params")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--mlflow-python", default=sys.executable, help="a Python that has the MLflow to measure")
    arguments = parser.parse_args()
    if problem := _unfit(arguments.mlflow_python):
        parser.error(problem)
    with tempfile.TemporaryDirectory() as scratch, Postgres(Path(scratch)) as postgres, ExitStack() as started:
        contenders = [
            started.enter_context(start(arguments, postgres, Path(scratch))) for start in (_mlflow, _stepstream)
        ]
        measured = uvloop.run(_measure(contenders, arguments))
    theirs, ours = measured["mlflow"], measured["stepstream"]
    if ours["search_runs"].pop("answer") != theirs["search_runs"].pop("answer"):
        raise RuntimeError("the two servers found different runs")
    ratios = {
        load: round(ours[load]["points_per_s"] / theirs[load]["points_per_s"], 1)
        for load in ("log_batch", "log_batch_times_apart", "log_metric")
    } | {
        "search_runs": round(theirs["search_runs"]["median_ms"] / ours["search_runs"]["median_ms"], 1),
    }
    reached = {f"{name} >= {wanted}": ratios[name] >= wanted for name, wanted in WANTED.items()}
    reached[f"search_runs <= {SEARCH_MS} ms"] = ours["search_runs"]["median_ms"] <= SEARCH_MS
    results.emit(**measured, ratios=ratios, reached=reached)


def _unfit(python: str) -> str:
    """Why the MLflow of a Python cannot be measured; empty when it can."""
    asked = "import importlib.metadata as m; print(m.version('mlflow'))"
    try:
        version = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False).stdout.strip()
    except OSError as error:
        return f"--mlflow-python: {error}"
    if version and int(version.partition(".")[0]) >= 3:
        return ""
    has = f"has MLflow {version}, whose server ends the connection after each answer" if version else "has no MLflow"
    return f"{python} {has}: --mlflow-python names one with MLflow 3, see benchmarks/README.md"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that is started, and at rest."""

    name: str
    url: str
    database: str
    fill: Callable[[int], Awaitable[None]]
    """Makes so many runs to be searched."""


@contextmanager
def _mlflow(arguments: argparse.Namespace, postgres: Postgres, scratch: Path) -> Iterator[Contender]:
    """`mlflow server` with as many workers as it starts by default."""
    postgres.fresh("mlflow")
    port, database = free_port(), postgres.by_tcp("mlflow")
    command = [arguments.mlflow_python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = ["--workers", "4", "--backend-store-uri", database, "--default-artifact-root", str(scratch / "artifacts")]
    results.say("starting MLflow")
    with Process([*command, *store], f"http://127.0.0.1:{port}", scratch / "mlflow.log") as server:
        yield Contender("mlflow", server.url, database, lambda runs: _fill_mlflow(database, runs))


@contextmanager
def _stepstream(arguments: argparse.Namespace, postgres: Postgres, scratch: Path) -> Iterator[Contender]:
    database = postgres.fresh("stepstream")
    results.say("starting StepStream")
    with BenchmarkServer(scratch / "stepstream", database, arguments.workers) as server:
        yield Contender("stepstream", server.url, database, lambda runs: _fill_stepstream(server.url, database, runs))


async def _measure(contenders: Sequence[Contender], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Both servers, in turns: what a shared machine does to one it does to the other, too."""
    loads = {
        "log_metric": ("log-metric", _metrics, 1),
        "log_batch": ("log-batch", _batches, BATCH),
        "log_batch_times_apart": ("log-batch", _batches_of_lone_metrics, BATCH),
    }
    measured: dict[str, dict[str, Any]] = {one.name: {} for one in contenders}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WRITERS)) as session:
        for name, (call, bodies, points) in loads.items():
            turns: dict[str, list[dict[str, Any]]] = {one.name: [] for one in contenders}
            for turn in range(arguments.rounds):
                for one in contenders:
                    results.say(f"{name}, round {turn + 1} of {arguments.rounds}: {one.name}")
                    url = f"{one.url}/api/2.0/mlflow/runs/{call}"
                    turns[one.name].append(await _log(session, url, arguments.seconds, bodies, points))
                    # What a server has still to tidy up should not weigh on the next.
                    await _until_at_rest(one.database)
            for one in contenders:
                measured[one.name][name] = _middle(turns[one.name])
        await _searches(session, contenders, arguments, measured)
    return measured


async def _searches(
    session: aiohttp.ClientSession,
    contenders: Sequence[Contender],
    arguments: argparse.Namespace,
    measured: dict[str, dict[str, Any]],
) -> None:
    for one in contenders:
        results.say(f"making {arguments.runs} runs: {one.name}")
        created = await _post(session, f"{one.url}/api/2.0/mlflow/experiments/create", {"name": "searched"})
        if created["experiment_id"] != "1":
            raise RuntimeError(f"a fresh server has an experiment {created}")
        await one.fill(arguments.runs)
    turns: dict[str, list[dict[str, Any]]] = {one.name: [] for one in contenders}
    for turn in range(arguments.rounds):
        for one in contenders:
            results.say(f"search_runs, round {turn + 1} of {arguments.rounds}: {one.name}")
            url = f"{one.url}/api/2.0/mlflow/runs/search"
            turns[one.name].append(await _search(session, url, arguments.seconds))
    for one in contenders:
        answer = turns[one.name][0].pop("answer")
        if any(turn.pop("answer") != answer for turn in turns[one.name][1:]):
            raise RuntimeError(f"{one.name} found other runs than before")
        measured[one.name]["search_runs"] = _middle(turns[one.name]) | {"answer": answer}


def _middle(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The median over the rounds."""
    return {key: round(statistics.median([turn[key] for turn in turns]), 2) for key in turns[0]}


async def _log(
    session: aiohttp.ClientSession, url: str, seconds: float, bodies: Callable[[str], Iterator[bytes]], points: int
) -> dict[str, Any]:
    """Eight writers, each with a run of its own."""
    api = url.rpartition("/runs/")[0]
    sources = []
    for _ in range(WRITERS):
        made = await _post(session, f"{api}/runs/create", {"experiment_id": "0", "start_time": START_MS})
        sources.append(bodies(made["run"]["info"]["run_id"]))
    await post_all(url, sources, WARM_UP_S)
    began = time.monotonic()
    took = await post_all(url, sources, seconds)
    elapsed = time.monotonic() - began
    return {
        "points_per_s": round(points * len(took) / elapsed),
        "p50_ms": round(results.percentile(took, 0.5) * 1e3, 2),
        "p99_ms": round(results.percentile(took, 0.99) * 1e3, 2),
    }


def _batches(run_id: str) -> Iterator[bytes]:
    """Bodies of log-batch: 100 keys at 10 steps, each with one time, as MLflow's client collects them.

    Its `log_metrics` reads the clock once a call; autologging without logged models joins calls into such requests.
    """
    return _bodies(run_id, lambda number: START_MS + number // KEYS)


def _batches_of_lone_metrics(run_id: str) -> Iterator[bytes]:
    """The same keys and steps, each metric with a time of its own, as of a call for each."""
    return _bodies(run_id, lambda number: START_MS + number)


def _bodies(run_id: str, time_ms: Callable[[int], int]) -> Iterator[bytes]:
    """Spelled as MLflow's client does. Steps alone change, as text."""
    metrics = [
        {
            "key": f"metric_{number % KEYS}",
            "value": number * 0.37,
            "timestamp": time_ms(number),
            "step": 10**12 + number // KEYS,
        }
        for number in range(BATCH)
    ]
    # Thirteen digits of a step: the first twelve say which batch it is.
    pieces = json.dumps({"run_id": run_id, "metrics": metrics}).encode().split(b'"step": 100000000000')
    for number in itertools.count(1):
        yield (b'"step": %d' % (10**11 + number)).join(pieces)


def _metrics(run_id: str) -> Iterator[bytes]:
    """Bodies of log-metric, spelled as MLflow's client does."""
    for step in itertools.count():
        said = {"run_uuid": run_id, "key": f"metric_{step % KEYS}", "value": step * 0.37, "timestamp": START_MS + step}
        yield json.dumps(said | {"step": step, "run_id": run_id}).encode()


async def _search(session: aiohttp.ClientSession, url: str, seconds: float) -> dict[str, Any]:
    """One who asks again and again; what an answer holds is looked at before."""
    answer = await _post(session, url, SEARCH)
    found = [run["info"]["run_name"] for run in answer["runs"]]
    if len(found) != SEARCH["max_results"] or any(len(run["data"]["metrics"]) != 20 for run in answer["runs"]):
        raise RuntimeError(f"{len(found)} runs came, or not all of their metrics")
    took = await post_all(url, [itertools.repeat(json.dumps(SEARCH).encode())], seconds)
    return {"median_ms": round(statistics.median(took) * 1e3, 1), "searches": len(took), "answer": found}


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status}: {(await response.text())[:300]}")
        said: dict[str, Any] = orjson.loads(await response.read())
        return said


def _value(run: int, metric: int) -> float:
    return ((run * 7919 + metric * 104_729) % 10_007) / 10_007 + run * 1e-9


def _param(run: int, param: int) -> str:
    return str((run * 31 + param * 17) % 16)


async def _fill_stepstream(url: str, database: str, runs: int) -> None:
    """Each run as its client would write it: one frame."""
    keys = tuple(f"metric_{metric}" for metric in range(20))
    headers = {"Content-Type": paths.MSGPACK}
    async with aiohttp.ClientSession() as session:
        for first in range(0, runs, 500):
            frames = [_frame(run, keys) for run in range(first, min(runs, first + 500))]
            async with session.post(url + paths.FRAMES, data=batch.pack(frames), headers=headers) as response:
                if response.status != 200:
                    raise RuntimeError(f"frames: {response.status}: {(await response.text())[:300]}")
    await _until_at_rest(database)
    connection = await asyncpg.connect(database)
    await _rest(connection)
    await connection.close()


async def _rest(connection: asyncpg.Connection) -> None:
    """As on a server at rest: PostgreSQL knows its tables, and has nothing to write or clean of the loads before."""
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")


async def _until_at_rest(database: str) -> None:
    """Until nothing is left to be compacted, nor to be tidied; MLflow's database always is."""
    connection = await asyncpg.connect(database)
    if await connection.fetchval("SELECT to_regclass('frames') IS NOT NULL"):
        while await connection.fetchval("SELECT count(*) FROM frames") or await connection.fetch(
            queries("compact")["untidy"], LOOSE
        ):
            await asyncio.sleep(1)
    await connection.close()


def _frame(run: int, keys: Sequence[str]) -> bytes:
    records = (
        Start(experiment="searched", name=f"run-{run}", user="", time_ms=START_MS + run, heartbeat_s=0),
        Params(items=tuple((f"param_{param}", _param(run, param)) for param in range(20))),
        Matrix(
            keys=tuple(keys),
            steps=np.array([1], np.int64),
            times_ms=np.array([START_MS], np.int64),
            values=np.array([[_value(run, metric)] for metric in range(20)]),
        ),
    )
    run_id = f"{run:032x}"
    return wire.encode(wire.Frame(run_id=run_id, writer=7, seq=1, rank=None, attempt=Attempt(), records=records))


async def _fill_mlflow(database: str, runs: int) -> None:
    """The same rows, copied into its tables: by its protocol this would take an hour."""
    connection = await asyncpg.connect(database)
    ids = [f"{run:032x}" for run in range(runs)]
    columns = ["run_uuid", "name", "source_type", "status", "start_time", "lifecycle_stage", "artifact_uri", "user_id"]
    rows = [
        (ids[run], f"run-{run}", "UNKNOWN", "RUNNING", START_MS + run, "active", f"/none/{run}", "somebody", 1)
        for run in range(runs)
    ]
    await connection.copy_records_to_table("runs", records=rows, columns=[*columns, "experiment_id"])
    for table in ("metrics", "latest_metrics"):
        await connection.copy_records_to_table(
            table,
            records=(
                (f"metric_{metric}", _value(run, metric), START_MS, 1, False, ids[run])
                for run in range(runs)
                for metric in range(20)
            ),
            columns=["key", "value", "timestamp", "step", "is_nan", "run_uuid"],
        )
    await connection.copy_records_to_table(
        "params",
        records=((f"param_{param}", _param(run, param), ids[run]) for run in range(runs) for param in range(20)),
        columns=["key", "value", "run_uuid"],
    )
    await connection.copy_records_to_table(
        "tags",
        records=[("mlflow.runName", f"run-{run}", ids[run]) for run in range(runs)],
        columns=["key", "value", "run_uuid"],
    )
    await _rest(connection)
    await connection.close()


if __name__ == "__main__":
    main()
