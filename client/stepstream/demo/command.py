"""The `stepstream demo` command."""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepstream.demo.server import DemoServer
from stepstream_schema import paths

BAR_WIDTH = 30


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("demo", help="train a small network in several processes and see every point arrive")
    parser.add_argument("--ranks", type=int, default=4, help="processes that train (default: 4)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long they train (default: 20)")
    parser.add_argument("--data-dir", type=Path, default=None, help="where the demo keeps its database")
    parser.set_defaults(handler=lambda arguments: run(arguments.ranks, arguments.seconds, arguments.data_dir))


@dataclass
class Rank:
    """One training process as its parent sees it."""

    process: "subprocess.Popen[str]"
    last: dict[str, Any] = field(default_factory=dict)

    def follow(self) -> None:
        """Read its lines until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.last |= json.loads(line)
            except ValueError:
                print(line, end="", file=sys.stderr)


def run(ranks: int, seconds: float, data_dir: Path | None) -> int:
    """The whole demo; 0 when every point that was logged is stored."""
    directory = data_dir or default_directory()
    print("Starting a server with a PostgreSQL of its own ...", flush=True)
    with DemoServer(directory) as server:
        print(f"{ranks} processes train on {server.url}, every step of every rank is logged.", flush=True)
        reports = _train(server.url, ranks, seconds, directory)
        return _verify(server.url, reports, directory)


def default_directory() -> Path:
    """The demo's own data directory, kept between demos."""
    state = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(state) / "stepstream" / "demo"


def _train(url: str, ranks: int, seconds: float, directory: Path) -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("STEPSTREAM_", "MLFLOW_"))}
    environment |= {
        "STEPSTREAM_TRACKING_URI": url,
        "STEPSTREAM_SPOOL_DIR": str(directory / "spool"),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "stepstream.demo.rank", str(seconds)]
    started = [
        Rank(
            subprocess.Popen(
                command,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        for rank in range(ranks)
    ]
    followers = [threading.Thread(target=rank.follow, daemon=True) for rank in started]
    for follower in followers:
        follower.start()
    while any(follower.is_alive() for follower in followers):
        _show(started)
        time.sleep(0.2)
    _show(started)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for rank in started:
        rank.process.wait()
    return [rank.last for rank in started]


def _show(ranks: list[Rank]) -> None:
    if not sys.stderr.isatty():
        return
    share = min(rank.last.get("share", 0.0) if "run_id" not in rank.last else 1.0 for rank in ranks)
    points = sum(rank.last.get("points", 0) for rank in ranks)
    loss = ranks[0].last.get("loss")
    bar = "█" * round(share * BAR_WIDTH)
    text = f"\r  {bar:·<{BAR_WIDTH}} {share:4.0%}  {points:>12,} points" + (f"  loss {loss:.4f}" if loss else "")
    print(text, end="", file=sys.stderr, flush=True)


def _verify(url: str, reports: list[dict[str, Any]], directory: Path) -> int:
    failed = [rank for rank, report in enumerate(reports) if "run_id" not in report]
    if failed:
        print(f"rank {failed[0]} ended early; see its message above", file=sys.stderr)
        return 1
    run_id = reports[0]["run_id"]
    with urllib.request.urlopen(url + paths.run_metrics(run_id), timeout=60) as response:
        series = json.load(response)["series"]
    logged = sum(report["points"] for report in reports)
    stored = sum(one["count"] for one in series)
    calls = sorted(call for report in reports for call in report["call_ns"])
    seconds = max(report["training_s"] for report in reports)
    final = min((one for one in series if one["key"] == "loss"), key=lambda one: one["rank"] or 0)
    per_step = len({one["key"] for one in series})
    print(
        f"\n  points logged   {logged:>14,}   ({per_step} metrics a step, {len(reports)} ranks, one run)\n"
        f"  points stored   {stored:>14,}   (read back from PostgreSQL)\n"
        f"  rate            {logged / seconds:>14,.0f}   points a second\n"
        f"  log() p50, p99  {calls[len(calls) // 2] / 1000:>7.1f} {calls[len(calls) * 99 // 100] / 1000:>6.1f}"
        f"   µs a call of {per_step} values\n"
        f"  final loss      {final['last']:>14.4f}   at step {final['last_step']:,} of rank {final['rank']}\n"
        f"  run             {run_id}\n\n"
        f"Look next: start the server again on the same data and read one series back:\n"
        f"  stepstream server --data-dir {directory}\n"
        f"  curl '{'http://127.0.0.1:5150'}{paths.run_history(run_id)}?key=loss&rank=0&points=20'\n"
    )
    missing = logged - stored
    if missing or any(not report["delivered"] or report["points_dropped"] for report in reports):
        print(f"{missing:,} points are missing", file=sys.stderr)
        return 1
    print("Every point that was logged is stored.")
    return 0
