"""Memory at full load, and through an outage: `python -m benchmarks.memory`."""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import results
from benchmarks.generate import post_ready_frames
from benchmarks.servers import BenchmarkServer, Postgres, free_port

SERVER_BOUND_MB = 300
POINTS_PER_SECOND = 100_000
VALUES = 100
BUFFER_BYTES = 64 * 2**20


def main() -> None:
    """The server at full load, then a client whose server is away."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        print(_outage(arguments.seconds))
        return
    with tempfile.TemporaryDirectory() as scratch:
        server = _server(Path(scratch), arguments.seconds)
        client = _client(Path(scratch), arguments.seconds)
    results.emit(
        seconds=arguments.seconds,
        server=server,
        client=client,
        reached={
            f"each server process < {SERVER_BOUND_MB} MB": max(server["peak_mb"].values()) < SERVER_BOUND_MB,
            "the client grows by less than its bound": client["growth_mb"] < client["bound_mb"],
            "the client dropped nothing": client["dropped"] == 0,
        },
    )


def _server(scratch: Path, seconds: float) -> dict[str, Any]:
    results.say("the server at full load, frames of 100 x 500")
    with Postgres(scratch) as postgres, BenchmarkServer(scratch / "server", postgres.fresh("memory")) as server:
        watched = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        peaks = {process.pid: 0 for process in watched}
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                for process in watched:
                    peaks[process.pid] = max(peaks[process.pid], process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            load = asyncio.run(post_ready_frames(server.url, 100, 500, seconds))
        finally:
            done.set()
            watcher.join()
    names = ["supervisor", *[f"worker {number}" for number in range(len(watched) - 1)]]
    return {
        "points_per_s": load["points_per_s"],
        "peak_mb": {name: round(peak / 1e6, 1) for name, peak in zip(names, peaks.values(), strict=True)},
    }


def _client(scratch: Path, seconds: float) -> dict[str, Any]:
    results.say("a client whose server is away")
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "STEPSTREAM_SPOOL_DIR": str(scratch / "spool"),
    }
    command = [sys.executable, "-m", "benchmarks.memory", "--client", "--seconds", str(seconds)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    before, peak, logged, dropped, spooled = (int(word) for word in said)
    return {
        "points_per_s": round(logged / seconds),
        "before_mb": round(before / 1e6, 1),
        "peak_mb": round(peak / 1e6, 1),
        "growth_mb": round((peak - before) / 1e6, 1),
        "bound_mb": round(BUFFER_BYTES / 1e6, 1),
        "spooled_mb": round(spooled / 1e6, 1),
        "dropped": dropped,
    }


def _outage(seconds: float) -> str:
    import numpy as np

    import stepstream

    process = psutil.Process()
    run = stepstream.start_run(experiment="memory", buffer_bytes=BUFFER_BYTES)
    rows = np.random.default_rng(0).normal(size=(1000, VALUES)).tolist()
    keys = [f"metric_{number}" for number in range(VALUES)]
    time.sleep(3)
    before = peak = process.memory_info().rss
    began = time.perf_counter()
    calls = int(seconds * POINTS_PER_SECOND / VALUES)
    for step in range(calls):
        run.log(dict(zip(keys, rows[step % 1000], strict=True)), step=step)
        if step % 100 == 0:
            peak = max(peak, process.memory_info().rss)
        time.sleep(max(0.0, began + step * VALUES / POINTS_PER_SECOND - time.perf_counter()))
    spooled = run.lag.bytes_spooled
    dropped = run.stats.points_dropped
    run.finish(timeout=0.1)
    return f"{before} {peak} {calls * VALUES} {dropped} {spooled}"


if __name__ == "__main__":
    main()
