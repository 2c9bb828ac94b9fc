"""What one log() costs in the training loop: `python -m benchmarks.log_call`.

Each tracker runs in a process of its own, and is called 1,000 times a second from two loops. One is a training: between
calls the demo's network learns, in NumPy; what a call costs there is the median and the p99. The other sleeps between
calls, and the processor's caches go cold: what a loop sees that waits for something else (`asleep_*`). It leaves the
processor alone, so that the CPU of the process, background threads included, can be told from that of the same loop
without logging. The loops take turns in blocks, and the trackers in rounds: what a shared machine does to one it does
to the others, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.servers import BenchmarkServer
from stepstream.demo.training import Network, spirals

CALLS_PER_SECOND = 1000
BLOCK_S = 2.0
"""How long one paced loop lasts before it is the other's turn."""
SETTLE_S = 1.0
"""What background threads still do this long after the last call is charged to the calls."""
BATCH = 32
"""Points in a step of the network: it takes about half of the time between two calls."""
Log = Callable[[dict[str, float], int], None]
Rest = Callable[[float], None]
"""What the loop does until this time of `time.perf_counter()`."""
Close = Callable[[], dict[str, Any]]


def main() -> None:
    """Measure all, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="how often each tracker has its turn")
    parser.add_argument("--blocks", type=int, default=1, help=f"of {BLOCK_S:g} s in each loop in each turn")
    parser.add_argument("--peers", default="trackio,wandb,tensorboardX")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--values", type=int, default=10, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(CONTENDERS[arguments.one], arguments.values, arguments.blocks)))
        return
    plan = [("stepstream", 10), ("stepstream", 100), ("least", 10)]
    plan += [(name, 10) for name in arguments.peers.split(",") if name]
    turns: dict[str, list[dict[str, Any]]] = {f"{name}_{values}": [] for name, values in plan}
    with tempfile.TemporaryDirectory() as scratch, BenchmarkServer(Path(scratch) / "server") as server:
        for turn in range(arguments.rounds):
            for name, values in plan:
                results.say(f"round {turn + 1} of {arguments.rounds}: {name}, {values} values a call")
                own = Path(scratch) / f"{name}-{values}-{turn}"
                turns[f"{name}_{values}"].append(_in_process(name, values, arguments.blocks, server.url, own))
    measured = {name: _middle(of) for name, of in turns.items()}
    ours, least, trackio = measured["stepstream_10"], measured["least_10"], measured.get("trackio_10")
    results.emit(
        calls_per_second=CALLS_PER_SECOND,
        seconds_each=arguments.rounds * arguments.blocks * BLOCK_S,
        **measured,
        reached={
            "median_us <= 2": ours["median_us"] <= 2,
            "p99_us <= 20": ours["p99_us"] <= 20,
            "cpu_us <= 15": ours["cpu_us"] <= 15,
            "cpu_us of 100 values <= 40": measured["stepstream_100"]["cpu_us"] <= 40,
            "nothing dropped": not ours["dropped"] and not measured["stepstream_100"]["dropped"],
            "trackio's median >= 20 x": bool(trackio) and trackio["median_us"] >= 20 * ours["median_us"],
        },
        trackio_median_ratio=trackio and round(trackio["median_us"] / ours["median_us"], 1),
        least_median_ratio=round(ours["median_us"] / least["median_us"], 1),
    )


def _middle(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The median over the rounds, but the sum of what was counted and the largest of the largest."""
    how = {"calls": sum, "dropped": sum, "acknowledged": sum, "max_us": max, "delivered": all}
    return {key: how.get(key, statistics.median)([turn[key] for turn in turns]) for key in turns[0]}  # type: ignore[operator]


def _in_process(name: str, values: int, blocks: int, url: str, own: Path) -> dict[str, Any]:
    own.mkdir()
    command = [sys.executable, "-m", "benchmarks.log_call", "--one", name, "--values", str(values)]
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": url,
        "STEPSTREAM_SPOOL_DIR": str(own / "spool"),
        "PYTHONPATH": os.getcwd(),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(own),
        "HF_HUB_OFFLINE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*command, "--blocks", str(blocks)], cwd=own, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} could not be measured:\n{done.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(start: Callable[[], tuple[Log, Close]], values: int, blocks: int) -> dict[str, Any]:
    """Pace, log, and account for it."""
    row = {f"metric_{number}": number + 0.5 for number in range(values)}
    calls = int(BLOCK_S * CALLS_PER_SECOND)
    train = _training()
    log, close = start()
    _paced(log, row, CALLS_PER_SECOND, _asleep)
    time.sleep(SETTLE_S)
    cpu = idle_cpu = trained_s = 0.0
    asleep: list[float] = []
    training: list[float] = []
    for block in range(blocks):
        first = CALLS_PER_SECOND + 2 * block * calls
        began = time.process_time()
        asleep += _paced(log, row, calls, _asleep, first)
        time.sleep(SETTLE_S)
        middle = time.process_time()
        _paced(lambda metrics, step: None, row, calls, _asleep)
        cpu += middle - began
        idle_cpu += time.process_time() - middle
        began_training = time.perf_counter()
        training += _paced(log, row, calls, train, first + calls)
        trained_s += time.perf_counter() - began_training
        time.sleep(SETTLE_S)
    closed = close()
    made = calls * blocks
    return {
        "median_us": round(results.percentile(training, 0.5), 2),
        "p99_us": round(results.percentile(training, 0.99), 2),
        "max_us": round(max(training), 1),
        "asleep_median_us": round(results.percentile(asleep, 0.5), 2),
        "asleep_p99_us": round(results.percentile(asleep, 0.99), 2),
        "cpu_us": round((cpu - idle_cpu) / made * 1e6, 2),
        "idle_loop_cpu_us": round(idle_cpu / made * 1e6, 2),
        "calls": 2 * made,
        "training_calls_per_second": round(made / trained_s),
    } | closed


def _paced(log: Log, row: dict[str, float], calls: int, rest: Rest, first: int = 0) -> list[float]:
    """Microseconds of each call."""
    costs = []
    clock = time.perf_counter_ns
    began = time.perf_counter()
    for number in range(calls):
        row["metric_0"] = number * 0.5
        before = clock()
        log(row, first + number)
        costs.append((clock() - before) / 1000)
        rest(began + (number + 1) / CALLS_PER_SECOND)
    return costs


def _asleep(until: float) -> None:
    time.sleep(max(0.0, until - time.perf_counter()))


def _training() -> Rest:
    rng = np.random.default_rng(0)
    network = Network(rng)
    points, label = spirals(rng, BATCH)

    def train(until: float) -> None:
        network.train(points, label)
        while time.perf_counter() < until:
            network.train(points, label)

    return train


def _stepstream() -> tuple[Log, Close]:
    import stepstream

    run = stepstream.start_run(experiment="log_call")
    run.flush(timeout=30)

    def close() -> dict[str, Any]:
        report = run.finish(timeout=60)
        stats = run.stats
        return {
            "dropped": stats.points_dropped + stats.bad_values + stats.points_refused,
            "delivered": report.delivered,
            "acknowledged": stats.points_acknowledged,
        }

    return run.log, close


def _least() -> tuple[Log, Close]:
    """The least that a tracker can do in Python: what a call costs on this machine at this hour, whoever is called."""
    rows: list[tuple[int, int, dict[str, float]]] = []

    def log(metrics: dict[str, float], step: int) -> None:
        rows.append((step, time.time_ns(), {**metrics}))

    return log, dict


def _wandb() -> tuple[Log, Close]:
    import wandb

    run = wandb.init(project="log_call", mode="offline", dir=".")

    def close() -> dict[str, Any]:
        run.finish()
        return {}

    return lambda metrics, step: run.log(metrics, step=step), close


def _trackio() -> tuple[Log, Close]:
    import contextlib

    import trackio

    with contextlib.redirect_stdout(sys.stderr):
        trackio.init(project="log_call", embed=False)

    def close() -> dict[str, Any]:
        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()
        return {}

    return lambda metrics, step: trackio.log(metrics, step=step), close


def _tensorboardx() -> tuple[Log, Close]:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter("tensorboard")

    def log(metrics: dict[str, float], step: int) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)

    def close() -> dict[str, Any]:
        writer.close()
        return {}

    return log, close


CONTENDERS: dict[str, Callable[[], tuple[Log, Close]]] = {
    "stepstream": _stepstream,
    "least": _least,
    "wandb": _wandb,
    "trackio": _trackio,
    "tensorboardX": _tensorboardx,
}

if __name__ == "__main__":
    main()
