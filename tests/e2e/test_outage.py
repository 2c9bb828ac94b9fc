"""A server that is away: log() goes on, and says once what it could not keep."""

import asyncio
import json
import os
import subprocess
import sys
import time

import pytest

import stepstream
from stepstream.writer import Writer
from tests.e2e import stored
from tests.e2e.proxy import Proxy
from tests.e2e.test_faults import until
from tests.servers import free_port


@pytest.fixture
def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}"


async def test_what_is_logged_during_an_outage_is_delivered_after_it(server_factory, tmp_path):
    server = server_factory()
    await asyncio.to_thread(server.stop)
    run = stepstream.start_run(experiment="outage", tracking_uri=server.url, spool_dir=tmp_path / "spool")
    for step in range(1000):
        run.log({"loss": float(step)}, step=step)
    assert not await asyncio.to_thread(run.flush, 1.0)
    await until(lambda: run.lag.points_unacknowledged == 1000)
    await asyncio.to_thread(server.restart)
    assert await asyncio.to_thread(run.flush, 30.0)
    assert run.lag.frames_unacknowledged == 0
    report = await asyncio.to_thread(run.finish)
    assert report.delivered
    assert await stored.count(server.database_url, run.run_id) == 1000
    assert list((tmp_path / "spool").iterdir()) == []


async def test_finish_keeps_its_limit_and_says_where_the_rest_lies(nowhere, tmp_path, caplog):
    run = stepstream.start_run(tracking_uri=nowhere, spool_dir=tmp_path / "spool")
    run.log({"loss": 1.0}, step=0)
    before = time.monotonic()
    report = await asyncio.to_thread(run.finish, "FINISHED", 0.5)
    assert time.monotonic() - before < 10
    assert (report.delivered, report.points_left) == (False, 1)
    assert report.spool_dir == tmp_path / "spool"
    assert "stepstream sync" in caplog.text
    assert len(list((tmp_path / "spool").glob("*.seg"))) == 1
    run.log({"loss": 2.0})
    assert run.stats.points_dropped == 1
    assert run.finish() is report


def sync(spool, server) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "stepstream.cli", "sync", str(spool), "--tracking-uri", server.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


async def test_sync_delivers_what_a_finished_run_left_while_its_process_lives(
    server_factory, nowhere, tmp_path, caplog
):
    server = server_factory()
    run = stepstream.start_run(tracking_uri=nowhere, spool_dir=tmp_path / "spool")
    other = stepstream.start_run(tracking_uri=nowhere, spool_dir=tmp_path / "spool")
    for step in range(100):
        run.log({"loss": float(step)}, step=step)
        other.log({"loss": float(step)}, step=step)
    # Each has looked what earlier runs have left, before there is something: it would hold on to it.
    await until(lambda: caplog.text.count("cannot be reached") == 2)
    assert not (await asyncio.to_thread(run.finish, "FINISHED", 0.5)).delivered
    await until(lambda: other.lag.points_unacknowledged == 100)
    done = await asyncio.to_thread(sync, tmp_path / "spool", server)
    assert await stored.count(server.database_url, run.run_id) == 100
    # The other one is still written to: that is said, and is no success.
    assert await stored.count(server.database_url, other.run_id) == 0
    assert done.returncode == 1
    assert "its writer is running" in done.stderr
    await asyncio.to_thread(other.finish, "FINISHED", 0.5)
    done = await asyncio.to_thread(sync, tmp_path / "spool", server)
    assert (done.returncode, done.stderr) == (0, "")
    assert await stored.count(server.database_url, other.run_id) == 100
    assert list((tmp_path / "spool").iterdir()) == []


async def test_the_next_run_of_the_same_process_delivers_what_a_finished_one_left(server_factory, tmp_path):
    server = server_factory()
    await asyncio.to_thread(server.stop)
    run = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path / "spool")
    run.log({"loss": 1.0}, step=0)
    assert not (await asyncio.to_thread(run.finish, "FINISHED", 0.5)).delivered
    # A run that ends before the server is back gives back what it had taken.
    second = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path / "spool")
    await asyncio.to_thread(second.finish, "FINISHED", 1.0)
    await asyncio.to_thread(server.restart)
    third = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path / "spool")
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "spool").glob("*.claim-*"))):
        assert time.monotonic() < deadline, list((tmp_path / "spool").iterdir())
        await asyncio.sleep(0.1)
    assert (await asyncio.to_thread(third.finish)).delivered
    assert await stored.count(server.database_url, run.run_id) == 1


async def test_one_rank_of_each_node_delivers_what_others_left(server_factory, tmp_path, monkeypatch):
    server, spool = server_factory(), tmp_path / "spool"
    await asyncio.to_thread(server.stop)
    earlier = stepstream.start_run(tracking_uri=server.url, spool_dir=spool)
    earlier.log({"loss": 1.0}, step=0)
    assert not (await asyncio.to_thread(earlier.finish, "FINISHED", 0.5)).delivered
    await asyncio.to_thread(server.restart)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, then_left in ("1", 1), ("0", 0):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        run = stepstream.start_run(run_id="ab" * 16, tracking_uri=server.url, spool_dir=spool)
        run.log({"loss": 2.0}, step=0)
        assert await asyncio.to_thread(run.flush, 30.0)
        deadline = time.monotonic() + 20
        while (left := len(list(spool.glob(f"{earlier.run_id}-*")))) > then_left:
            assert time.monotonic() < deadline, list(spool.iterdir())
            await asyncio.sleep(0.1)
        assert left == then_left
        assert (await asyncio.to_thread(run.finish)).delivered
    assert await stored.count(server.database_url, earlier.run_id) == 1


async def test_a_run_that_has_dropped_points_is_not_delivered_whole(server_factory, tmp_path, caplog, monkeypatch):
    server = server_factory()
    launch = Writer.launch
    monkeypatch.setattr(Writer, "launch", lambda writer: None)
    run = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path, buffer_bytes=2**16)
    for step in range(1000):
        run.log({"loss": 1.0}, step=step)
    dropped = run.stats.points_dropped
    assert 0 < dropped < 1000
    launch(run._writer)
    assert not await asyncio.to_thread(run.flush)
    assert await stored.count(server.database_url, run.run_id) == 1000 - dropped
    report = await asyncio.to_thread(run.finish)
    assert (report.delivered, report.points_left, report.points_lost) == (False, 0, dropped)
    assert f"{dropped} points are lost" in caplog.text


@pytest.mark.parametrize("sent_by", ["the run", "the next run", "sync"])
async def test_a_run_in_a_deleted_experiment_says_how_it_will_be_seen(
    server_factory, nowhere, tmp_path, caplog, sent_by
):
    server = server_factory()
    client = stepstream.MlflowClient(server.url)
    experiment_id = await asyncio.to_thread(client.create_experiment, "old")
    await asyncio.to_thread(client.delete_experiment, experiment_id)
    if sent_by == "the next run":
        await asyncio.to_thread(server.stop)
    place = {"tracking_uri": nowhere if sent_by == "sync" else server.url, "spool_dir": tmp_path / "spool"}
    run = stepstream.start_run(experiment="old", **place)
    run.log({"loss": 1.0}, step=0)
    report = await asyncio.to_thread(run.finish, "FINISHED", 20.0 if sent_by == "the run" else 0.5)
    assert report.delivered == (sent_by == "the run")
    said = ""
    if sent_by == "sync":
        done = await asyncio.to_thread(sync, tmp_path / "spool", server)
        assert done.returncode == 0
        said = done.stderr
    elif sent_by == "the next run":
        await asyncio.to_thread(server.restart)
        second = stepstream.start_run(experiment="new", **place)
        deadline = time.monotonic() + 20
        while any(run.run_id in file.name for file in (tmp_path / "spool").iterdir()):
            assert time.monotonic() < deadline, list((tmp_path / "spool").iterdir())
            await asyncio.sleep(0.1)
        assert (await asyncio.to_thread(second.finish)).delivered
    assert f"run {run.run_id} is stored, and shown once" in said + caplog.text
    await asyncio.to_thread(client.restore_experiment, experiment_id)
    (found,) = await asyncio.to_thread(client.search_runs, [experiment_id])
    assert (found.info.run_id, found.data.metrics) == (run.run_id, {"loss": 1.0})


async def test_a_full_buffer_drops_counts_and_says_so_once(nowhere, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Writer, "launch", lambda writer: None)
    run = stepstream.start_run(tracking_uri=nowhere, spool_dir=tmp_path, buffer_bytes=2**16)
    for step in range(1000):
        run.log({"loss": 1.0}, step=step)
    dropped = run.stats.points_dropped
    assert 0 < dropped < 1000
    assert run.lag.points_buffered == 1000 - dropped
    assert caplog.text.count("the buffer of") == 1


async def test_bad_values_are_counted_said_once_and_never_raised(nowhere, tmp_path, caplog):
    run = stepstream.start_run(tracking_uri=nowhere, spool_dir=tmp_path / "spool")
    for _ in range(5):
        run.log({"good": 1.0, "bad": "text", "worse": None})
        run.log(3)
    assert run.stats.bad_values == 15
    assert caplog.text.count("a value was not logged") == 1
    run.log_param("", "x")
    run.set_tag("t" * 300, "x")
    report = await asyncio.to_thread(run.finish, "FINISHED", 0.3)
    assert report.points_left == 5
    assert run.stats.bad_values == 17


async def test_every_call_is_in_the_spool_before_it_returns(server_factory, nowhere, tmp_path):
    server = server_factory()
    script = (
        "import os, signal, stepstream\n"
        "run = stepstream.start_run(spool_interval='every call')\n"
        "for step in range(50):\n"
        "    run.log({'loss': float(step)}, step=step)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run_id = "ef" * 16
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": nowhere,
        "STEPSTREAM_SPOOL_DIR": str(tmp_path),
        "STEPSTREAM_RUN_ID": run_id,
    }
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], env=environment, check=False)
    sync = [sys.executable, "-m", "stepstream.cli", "sync", str(tmp_path), "--tracking-uri", server.url]
    done = await asyncio.to_thread(subprocess.run, sync, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    points = await stored.points(server.database_url, run_id)
    assert {point.step: point.value for point in points} == {step: float(step) for step in range(50)}


async def test_the_async_twin_leaves_the_event_loop_alone(server_factory, tmp_path):
    server = server_factory()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    heart = asyncio.create_task(beat())
    # It passes nothing on before the loop has gone on, and it is this very loop that lets it.
    async with Proxy(server.port) as proxy:
        proxy.hold = b"POST "
        async with stepstream.AsyncRun(tracking_uri=proxy.url, spool_dir=tmp_path / "spool") as run:
            run.log_params({"lr": 0.1})
            for step in range(100):
                run.log({"loss": 1.0 / (step + 1)})
            flushed = asyncio.create_task(run.flush(timeout=60))
            before = beats
            await until(lambda: beats > before + 10)
            assert not flushed.done()
            proxy.hold = b""
            assert await flushed
    heart.cancel()
    assert await stored.count(server.database_url, run.run_id) == 100
    rows = await stored.fetch(server.database_url, "SELECT status FROM runs WHERE run_id = $1::text::uuid", run.run_id)
    assert rows[0]["status"] == "FINISHED"


def test_the_light_client_imports_quickly_and_brings_nothing_heavy():
    script = "import json, sys, stepstream; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert not modules & {"numpy", "zstandard", "aiohttp", "asyncio", "asyncpg", "msgpack"}
