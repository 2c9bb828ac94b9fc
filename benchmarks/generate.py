"""Load: processes that call log(), and ready-made frames that go straight to the server."""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import numpy as np

from benchmarks import results
from stepstream.buffer import ROW_BYTES, VALUE_BYTES
from stepstream_schema import batch, paths
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Start

MAX_WAITING_BYTES = 24 * 2**20
"""The caller pauses above this much in its buffer, so that nothing is dropped: a training would be slower anyway."""
MAX_UNACKNOWLEDGED_POINTS = 3_000_000
"""The caller pauses when the server is this far behind: the rate is what is committed, not what is piled up."""
CONNECTIONS = 8
"""As many writers as each peer gets."""
REQUEST_BYTES = 2 * 2**20


def log_in_processes(url: str, processes: int, seconds: float, values: int) -> dict[str, Any]:
    """N processes call log() with `values` values as fast as the way to the database takes them."""
    with tempfile.TemporaryDirectory() as spool:
        environment = os.environ | {
            "STEPSTREAM_TRACKING_URI": url,
            "STEPSTREAM_SPOOL_DIR": spool,
            "STEPSTREAM_RUN_ID": os.urandom(16).hex(),
        }
        command = [sys.executable, "-m", "benchmarks.generate", "--seconds", str(seconds), "--values", str(values)]
        started = [
            subprocess.Popen(
                [*command, "--rank", str(rank)],
                env=environment | {"RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(processes)
        ]
        said = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    began, ended = min(one["began"] for one in said), max(one["ended"] for one in said)
    points = sum(one["points"] for one in said)
    return {
        "points_per_s": round(points / (ended - began)),
        "points": points,
        "points_logged": sum(one["logged"] for one in said),
        "seconds": round(ended - began, 2),
        "processes": processes,
        "values_per_call": values,
        "calls": sum(one["calls"] for one in said),
        "dropped": sum(one["dropped"] for one in said),
        "undelivered": sum(not one["delivered"] for one in said),
        "run_id": said[0]["run_id"],
    }


def _log(seconds: float, values: int, rank: int) -> dict[str, Any]:
    import stepstream

    run = stepstream.start_run(experiment="load", rank=rank, buffer_bytes=64 * 2**20)
    rng = np.random.default_rng(rank)
    # Noise, prepared: making it is not what is measured, and a constant would compress to nothing. The names are the
    # same objects in every call, as literals are.
    names = [f"metric_{n}" for n in range(values)]
    rows = [dict(zip(names, row, strict=True)) for row in rng.normal(size=(1000, values)).tolist()]
    most_rows = MAX_WAITING_BYTES // (ROW_BYTES + VALUE_BYTES * values)
    step = 0
    for step in range(2000):
        run.log(rows[step % 1000], step=step)
    run.flush(timeout=60)
    warm = run.stats.points_acknowledged
    outbox = run._writer.outbox
    assert outbox is not None
    began, deadline = time.time(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _ in range(200):
            step += 1
            run.log(rows[step % 1000], step=step)
        # Not by `run.lag`, which counts the buffer's points one row at a time: no training asks every few calls.
        while len(run._buffer.rows) > most_rows or outbox.unsettled.points > MAX_UNACKNOWLEDGED_POINTS:
            time.sleep(0.005)
    delivered = run.flush(timeout=120)
    ended = time.time()
    stats = run.stats
    run.finish(timeout=60)
    return {
        "began": began,
        "ended": ended,
        "points": stats.points_acknowledged - warm,
        "logged": (step + 1) * values,
        "calls": (stats.points_acknowledged - warm) // values,
        "delivered": delivered,
        "dropped": stats.points_dropped + stats.points_refused + stats.bad_values,
        "run_id": run.run_id,
    }


SEQ_MARK, STEP_MARK, TIME_MARK = 2**40, 2**41, 2**42
"""Stand for what differs from frame to frame: as msgpack, a tag and eight bytes each, which are replaced."""


DISTINCT_STEPS = 10_000
"""Values repeat after so many steps: more than a chunk holds, so that nothing compresses better than noise does."""


def ready_frames(run_id: str, writer: int, keys: int, steps: int) -> Iterator[bytes]:
    """Distinct, numbered frames without end: columns are encoded beforehand; number, first step and time differ.

    Values are float32 noise, as trainings make them; steps go on from frame to frame, times are jittered by 10 %.
    """
    start = Start(experiment="load", name="ready frames", time_ms=1)
    yield wire.encode(wire.Frame(run_id=run_id, writer=writer, seq=1, rank=writer, attempt=Attempt(), records=(start,)))
    rng = np.random.default_rng(writer)
    templates = [_template(run_id, writer, keys, steps, rng) for _ in range(-(-DISTINCT_STEPS // steps))]
    time_ms = 1_700_000_000_000
    for number, (pieces, rest, lasted_ms) in enumerate(itertools.cycle(templates)):
        marks = (number + 2, number * steps, time_ms)
        yield b"".join([*(before + mark.to_bytes(8, "big") for before, mark in zip(pieces, marks, strict=True)), rest])
        time_ms += lasted_ms


def _template(
    run_id: str, writer: int, keys: int, steps: int, rng: np.random.Generator
) -> tuple[list[bytes], bytes, int]:
    """A frame cut before each of its three marks, what follows the last, and how many ms it spans."""
    gaps = rng.integers(90, 111, steps)
    frame = wire.Frame(
        run_id=run_id,
        writer=writer,
        seq=SEQ_MARK,
        rank=writer,
        attempt=Attempt(),
        records=(
            Matrix(
                keys=tuple(f"layer.{number}.weight_norm" for number in range(keys)),
                steps=STEP_MARK + np.arange(steps, dtype=np.int64),
                times_ms=TIME_MARK + np.cumsum(gaps) - gaps[0],
                values=rng.normal(size=(keys, steps)).astype(np.float32).astype(np.float64),
            ),
        ),
    )
    data = wire.encode(frame)
    pieces: list[bytes] = []
    for mark in (SEQ_MARK, STEP_MARK, TIME_MARK):
        before, _, data = data.partition(b"\xcf" + mark.to_bytes(8, "big"))
        pieces.append(before + b"\xcf")
    return pieces, data, int(gaps.sum())


async def post_ready_frames(url: str, keys: int, steps: int, seconds: float) -> dict[str, Any]:
    """Post ready frames over a few connections; only answered ones count."""
    run_id = os.urandom(16).hex()
    counted = {"frames": 0, "bytes": 0}
    warming = {"frames": 0, "bytes": 0}
    minutes: dict[int, int] = {}
    acks: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:
        sources = [ready_frames(run_id, writer + 1, keys, steps) for writer in range(CONNECTIONS)]
        for source in sources:
            await _post(session, url, [next(source)])
        warm_until = time.monotonic() + min(2.0, seconds / 5)
        await asyncio.gather(*[_pump(session, url, source, warm_until, warming, acks, {}) for source in sources])
        acks.clear()
        began = time.monotonic()
        await asyncio.gather(
            *[_pump(session, url, source, began + seconds, counted, acks, minutes) for source in sources]
        )
        elapsed = time.monotonic() - began
    return {
        "points_acknowledged": (warming["frames"] + counted["frames"]) * keys * steps,
        "points_per_s": round(counted["frames"] * keys * steps / elapsed),
        "frames_per_s": round(counted["frames"] / elapsed, 1),
        "bytes_per_point_sent": round(counted["bytes"] / max(1, counted["frames"] * keys * steps), 2),
        "ack_p50_ms": round(results.percentile(acks, 0.5) * 1000, 1),
        "ack_p99_ms": round(results.percentile(acks, 0.99) * 1000, 1),
        "seconds": round(elapsed, 2),
        "run_id": run_id,
        "points_per_s_by_minute": [
            round(minutes[minute] * keys * steps / min(60.0, seconds - 60 * place))
            for place, minute in enumerate(sorted(minutes))
            if seconds - 60 * place > 1
        ],
    }


async def _pump(
    session: aiohttp.ClientSession,
    url: str,
    source: Iterator[bytes],
    until: float,
    counted: dict[str, int],
    acks: list[float],
    minutes: dict[int, int],
) -> None:
    began = time.monotonic()
    while time.monotonic() < until:
        frames = [next(source)]
        size = len(frames[0])
        while size + len(frames[0]) <= REQUEST_BYTES and len(frames) < 256:
            frames.append(next(source))
            size += len(frames[-1])
        before = time.monotonic()
        await _post(session, url, frames)
        acks.append(time.monotonic() - before)
        counted["frames"] += len(frames)
        counted["bytes"] += size
        minute = int(before - began) // 60
        minutes[minute] = minutes.get(minute, 0) + len(frames)


async def _post(session: aiohttp.ClientSession, url: str, frames: list[bytes]) -> None:
    headers = {"Content-Type": "application/msgpack"}
    while True:
        async with session.post(url + paths.FRAMES, data=batch.pack(frames), headers=headers) as response:
            answer = await response.json()
            if response.status in (429, 503):
                await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
                continue
            if response.status != 200 or answer["stored"] != len(frames):
                raise RuntimeError(f"the server answered {response.status}: {answer}")
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--values", type=int, required=True)
    parser.add_argument("--rank", type=int, required=True)
    arguments = parser.parse_args()
    print(json.dumps(_log(arguments.seconds, arguments.values, arguments.rank)))
