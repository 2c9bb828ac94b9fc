"""A training that logs values everybody can compute again: `python -m tests.e2e.trainer --steps 1000 ...`."""

import argparse
import hashlib
import json
import os
import struct
import sys
import time

import stepstream


def value(rank: int, attempt: int, key: int, step: int) -> float:
    """A float64 that follows from where it stands; never NaN, so that sets of them compare."""
    digest = hashlib.blake2b(struct.pack("<4q", rank, attempt, key, step), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def set_clock_off(seconds: float) -> None:
    """Every reading of the wall clock in this process is wrong by that much."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + int(seconds * 1e9)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.0, help="steps a second; 0 is as fast as it goes")
    parser.add_argument("--experiment", default="e2e")
    parser.add_argument("--progress", default="", help="file that gets a line for each logged step")
    parser.add_argument("--finish-timeout", type=float, default=60.0)
    parser.add_argument("--die-at", type=int, default=-1, help="in attempt 0, leave with an error at this step")
    parser.add_argument("--clock-off", type=float, default=0.0, help="seconds by which this process's clock is wrong")
    arguments = parser.parse_args()
    if arguments.clock_off:
        set_clock_off(arguments.clock_off)
    run = stepstream.start_run(experiment=arguments.experiment)
    rank = run.rank or 0
    attempt = run.attempt.elastic
    progress = os.open(arguments.progress, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if arguments.progress else None
    began = time.monotonic()
    for number, step in enumerate(range(arguments.first, arguments.first + arguments.steps)):
        if step == arguments.die_at and attempt == 0:
            run.flush(timeout=30)
            return 3
        run.log({f"k{key}": value(rank, attempt, key, step) for key in range(arguments.keys)}, step=step)
        if progress is not None:
            os.write(progress, f"{step} {time.time()}\n".encode())
        if arguments.rate:
            time.sleep(max(0.0, (number + 1) / arguments.rate - (time.monotonic() - began)))
    report = run.finish(timeout=arguments.finish_timeout)
    stats = run.stats
    said = {
        "run_id": run.run_id,
        "writer": run.writer,
        "rank": rank,
        "attempt": attempt,
        "delivered": report.delivered,
        "points_left": report.points_left,
        "dropped": stats.points_dropped + stats.points_refused + stats.bad_values,
    }
    # One write for line and newline: the ranks of a launcher share this pipe.
    os.write(1, (json.dumps(said) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
