"""Real processes, really killed: whatever happens, every point is stored exactly once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import stored
from tests.e2e.proxy import Proxy
from tests.e2e.stored import Point
from tests.e2e.trainer import value


def expected(steps: range, keys: int, rank: int | None = None, attempt: int = 0) -> Counter[Point]:
    return Counter(
        {
            Point(f"k{key}", rank, attempt, step, value(rank or 0, attempt, key, step)): 1
            for step in steps
            for key in range(keys)
        }
    )


class Trainer:
    """One process of tests.e2e.trainer."""

    def __init__(self, url: str, spool: Path, *arguments: str, **environment: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("STEPSTREAM_", "MLFLOW_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.trainer", *arguments],
            env=inherited | {"STEPSTREAM_TRACKING_URI": url, "STEPSTREAM_SPOOL_DIR": str(spool)} | environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    async def said(self, timeout: float = 90) -> dict[str, Any]:
        out, _ = await asyncio.to_thread(self.process.communicate, timeout=timeout)
        assert self.process.returncode == 0
        said: dict[str, Any] = json.loads(out.splitlines()[-1])
        return said


async def until(predicate, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, "this did not happen in time"
        await asyncio.sleep(0.05)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_a_server_killed_mid_load_and_restarted_has_every_point_once(server_factory, tmp_path):
    server = server_factory()
    progress = tmp_path / "progress"
    trainer = Trainer(
        server.url, tmp_path / "spool", "--steps=2500", "--keys=20", "--rate=500", f"--progress={progress}"
    )
    await until(lambda: len(lines(progress)) > 700)
    await asyncio.to_thread(server.kill)
    await until(lambda: len(lines(progress)) > 1500)
    await asyncio.to_thread(server.restart)
    said = await trainer.said()
    assert said["delivered"]
    assert said["dropped"] == 0
    assert await stored.points(server.database_url, said["run_id"]) == expected(range(2500), 20)
    assert await stored.count(server.database_url, said["run_id"]) == 50_000


@pytest.mark.parametrize("killed", ["a worker", "everything"])
async def test_what_is_killed_hard_under_load_costs_no_point_and_stores_none_twice(server_factory, tmp_path, killed):
    """SIGKILL of the supervisor alone is a SIGTERM to its workers, which drain: here nothing has time to."""
    server = server_factory("--workers", "2")
    runs = [digit * 32 for digit in "abc"]
    trainers = [
        Trainer(
            server.url,
            tmp_path / "spool",
            "--steps=2000",
            "--keys=20",
            "--rate=150",
            f"--progress={tmp_path / run_id}",
            STEPSTREAM_RUN_ID=run_id,
        )
        for run_id in runs
    ]
    await until(lambda: all(len(lines(tmp_path / run_id)) > 300 for run_id in runs), timeout=60)
    logged = min(len(lines(tmp_path / run_id)) for run_id in runs)
    for _ in range(2):
        if killed == "everything":
            await asyncio.to_thread(server.kill_everything)
            await asyncio.to_thread(server.restart)
        else:
            before = server.workers()
            os.kill(before[0], signal.SIGKILL)
            await until(lambda: len(server.workers()) == 2 and before[0] not in server.workers())  # noqa: B023
        logged += 100
        await until(lambda: all(len(lines(tmp_path / run_id)) > logged for run_id in runs))  # noqa: B023
    for run_id, said in zip(runs, [await trainer.said() for trainer in trainers], strict=True):
        assert (said["delivered"], said["dropped"]) == (True, 0)
        assert await stored.points(server.database_url, run_id) == expected(range(2000), 20)
        assert await stored.count(server.database_url, run_id) == 40_000


async def test_postgresql_killed_and_restarted_has_every_point_once(server_factory, tmp_path):
    server = server_factory()
    progress = tmp_path / "progress"
    trainer = Trainer(
        server.url, tmp_path / "spool", "--steps=2000", "--keys=10", "--rate=400", f"--progress={progress}"
    )
    await until(lambda: len(lines(progress)) > 500)
    await asyncio.to_thread(server.kill_postgresql)
    said = await trainer.said()
    assert said["delivered"]
    assert await stored.points(server.database_url, said["run_id"]) == expected(range(2000), 10)


async def test_a_killed_trainer_leaves_all_but_its_last_half_second_for_sync(server_factory, tmp_path):
    server = server_factory()
    spool, progress = tmp_path / "spool", tmp_path / "progress"
    run_id = "ab" * 16
    trainer = Trainer(
        "http://127.0.0.1:9",  # nothing listens there: all of it is in the spool when the trainer dies
        spool,
        "--steps=100000",
        "--keys=10",
        "--rate=300",
        f"--progress={progress}",
        STEPSTREAM_RUN_ID=run_id,
    )
    await until(lambda: len(lines(progress)) > 900)
    trainer.kill()
    died = time.time()
    logged = [line.split() for line in lines(progress)]
    for segment in spool.glob("*.open"):
        # A kill in the middle of a write leaves half an entry behind.
        with segment.open("ab") as file:
            file.write(b"\x40\x00\x00\x00half an entry")
    sync = [sys.executable, "-m", "stepstream.cli", "sync", str(spool), "--tracking-uri", server.url]
    done = await asyncio.to_thread(subprocess.run, sync, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    points = await stored.points(server.database_url, run_id)
    steps = {point.step for point in points}
    safe = [int(step) for step, when in logged if float(when) < died - 0.5]
    assert len(safe) > 600
    assert steps >= set(safe)
    assert points == expected(range(len(steps)), 10)
    assert not [path for path in spool.iterdir() if path.is_file()]
    again = await asyncio.to_thread(subprocess.run, sync, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0
    assert await stored.points(server.database_url, run_id) == points


async def test_the_next_run_on_the_host_delivers_what_a_killed_one_left(server_factory, tmp_path):
    server = server_factory()
    spool, progress = tmp_path / "spool", tmp_path / "progress"
    server.kill()
    trainer = Trainer(
        server.url,
        spool,
        "--steps=100000",
        "--rate=300",
        f"--progress={progress}",
        STEPSTREAM_RUN_ID="cd" * 16,
    )
    await until(lambda: len(lines(progress)) > 600)
    trainer.kill()
    await asyncio.to_thread(server.restart)
    said = await Trainer(server.url, spool, "--steps=600", "--rate=100").said()
    assert said["delivered"]
    points = await stored.points(server.database_url, "cd" * 16)
    assert len({point.step for point in points}) > 300
    assert points == expected(range(len(points) // 10), 10)


async def test_an_answer_lost_after_the_commit_stores_nothing_twice(server_factory, tmp_path):
    server = server_factory()
    async with Proxy(server.port) as proxy:
        proxy.lose_answers = 5
        said = await Trainer(proxy.url, tmp_path / "spool", "--steps=1500", "--rate=500").said()
        assert proxy.answers_lost == 5
    assert said["delivered"]
    assert await stored.points(server.database_url, said["run_id"]) == expected(range(1500), 10)


async def test_eight_ranks_at_once_log_into_one_run(server_factory, tmp_path):
    server = server_factory()
    ranks = [
        Trainer(
            server.url,
            tmp_path / "spool",
            "--steps=300",
            "--rate=150",
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="8",
            LOCAL_WORLD_SIZE="8",
        )
        for rank in range(8)
    ]
    said = [await trainer.said() for trainer in ranks]
    assert len({one["run_id"] for one in said}) == 1
    assert len({one["writer"] for one in said}) == 8
    points = await stored.points(server.database_url, said[0]["run_id"])
    assert points == sum((expected(range(300), 10, rank) for rank in range(8)), Counter())


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_an_hour_off_changes_nothing_but_the_times(server_factory, tmp_path, hours):
    server = server_factory("--heartbeat-timeout", "60")
    arguments = ["--steps=200", f"--clock-off={hours * 3600}"]
    said = await Trainer(server.url, tmp_path / "spool", *arguments).said()
    assert await stored.points(server.database_url, said["run_id"]) == expected(range(200), 10)
    rows = await stored.fetch(
        server.database_url, "SELECT status, start_time_ms FROM runs WHERE run_id = $1::text::uuid", said["run_id"]
    )
    assert [row["status"] for row in rows] == ["FINISHED"]
    assert abs(rows[0]["start_time_ms"] / 1000 - time.time() - hours * 3600) < 600


async def test_two_jobs_at_once_on_one_host_are_two_runs(server_factory, tmp_path):
    """Each job is a launcher of its own; what tells them apart is the launcher's process."""
    server = server_factory()
    launcher = (
        "import os, subprocess, sys\n"
        "env = lambda r: os.environ | {'RANK': r, 'LOCAL_RANK': r, 'WORLD_SIZE': '2', 'LOCAL_WORLD_SIZE': '2'}\n"
        "run = [sys.executable, '-m', 'tests.e2e.trainer', '--steps=100']\n"
        "ranks = [subprocess.Popen(run, env=env(r)) for r in '01']\n"
        "sys.exit(max(rank.wait() for rank in ranks))\n"
    )
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": server.url,
        "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
    }
    jobs = [
        subprocess.Popen([sys.executable, "-c", launcher], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outs = [(await asyncio.to_thread(job.communicate, timeout=60))[0] for job in jobs]
    runs = [{json.loads(line)["run_id"] for line in out.splitlines()} for out in outs]
    assert [len(ids) for ids in runs] == [1, 1]
    assert runs[0] != runs[1]
    for ids in runs:
        points = await stored.points(server.database_url, ids.pop())
        assert points == expected(range(100), 10, 0) + expected(range(100), 10, 1)


async def left_behind(spool: Path, run_id: str) -> int:
    """A trainer of which all is in the spool, in many segments, and that is dead; how many steps it logged."""
    trainer = Trainer(
        "http://127.0.0.1:9", spool, "--steps=400", "--keys=10", "--finish-timeout=0.5", STEPSTREAM_RUN_ID=run_id
    )
    assert not (await trainer.said())["delivered"]
    return 400


async def test_two_syncs_at_once_deliver_every_point_once(server_factory, tmp_path):
    server = server_factory()
    spool = tmp_path / "spool"
    runs = [digit * 32 for digit in "abcdef"]
    for run_id in runs:
        await left_behind(spool, run_id)
    sync = [sys.executable, "-m", "stepstream.cli", "sync", str(spool), "--tracking-uri", server.url]
    done = await asyncio.gather(
        *[asyncio.to_thread(subprocess.run, sync, capture_output=True, text=True, timeout=90) for _ in range(3)]
    )
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    for run_id in runs:
        assert await stored.points(server.database_url, run_id) == expected(range(400), 10)
    assert not [path for path in spool.iterdir() if path.is_file()]


async def test_what_another_host_left_is_delivered_when_everything_is_asked_for(server_factory, tmp_path, monkeypatch):
    server = server_factory()
    spool, run_id = tmp_path / "spool", "ab" * 16
    # A host is its name: `unshare --uts` would need privileges that not every machine gives.
    script = "import socket, sys; socket.gethostname = lambda: 'elsewhere'\n"
    script += "from tests.e2e.trainer import main; sys.argv = ['trainer', '--steps=50', '--finish-timeout=0.5']; main()"
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": "http://127.0.0.1:9",
        "STEPSTREAM_SPOOL_DIR": str(spool),
        "STEPSTREAM_RUN_ID": run_id,
    }
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], env=environment, check=True, timeout=60)
    sync = [sys.executable, "-m", "stepstream.cli", "sync", str(spool), "--tracking-uri", server.url]
    refused = await asyncio.to_thread(subprocess.run, sync, capture_output=True, text=True, timeout=60)
    assert "elsewhere" in refused.stdout + refused.stderr
    assert "--everything" in refused.stdout + refused.stderr
    assert refused.returncode == 1
    assert await stored.count(server.database_url, run_id) == 0
    done = await asyncio.to_thread(subprocess.run, [*sync, "--everything"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert await stored.points(server.database_url, run_id) == expected(range(50), 10)
