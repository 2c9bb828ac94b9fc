"""Launchers, forks and crowds: every writer is told apart, and every point is stored once."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from stepstream.backoff import Backoff
from stepstream.delivery import Delivery, Pending
from stepstream.transport import Transport, Unavailable
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Start
from tests.e2e import stored
from tests.e2e.test_faults import expected

CLIENTS = 512
FRAMES_EACH = 4
POINTS_EACH = 10


@pytest.mark.parametrize("rendezvous", [[], ["--standalone"]])
async def test_an_elastic_restart_of_torchrun_is_a_new_attempt_of_the_same_run(server_factory, tmp_path, rendezvous):
    pytest.importorskip("torch", reason="the extra `frameworks` is not installed: torchrun was left out")
    server = server_factory()
    command = [sys.executable, "-m", "torch.distributed.run", *rendezvous, "--nproc-per-node=2", "--max-restarts=1"]
    if not rendezvous:
        command.append("--master-port=0")
    trainer = ["-m", "tests.e2e.trainer", "--steps=60", "--rate=100", "--die-at=30"]
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": server.url,
        "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
        "OMP_NUM_THREADS": "1",
    }
    done = await asyncio.to_thread(
        subprocess.run, [*command, *trainer], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {(one["rank"], one["attempt"]) for one in said} == {(0, 1), (1, 1)}
    assert len({one["run_id"] for one in said}) == 1
    points = await stored.points(server.database_url, said[0]["run_id"])
    assert max(points.values()) == 1
    for rank in (0, 1):
        assert Counter(point for point in points if (point.rank, point.elastic) == (rank, 1)) == expected(
            range(60), 10, rank, 1
        )
    # One rank dies first and the launcher kills the other: what it had logged by then is a prefix.
    first = {rank: {p.step for p in points if (p.rank, p.elastic) == (rank, 0)} for rank in (0, 1)}
    assert max(len(steps) for steps in first.values()) == 30
    assert all(steps <= set(range(31)) for steps in first.values())


LIGHTNING = """
import sys
import torch
import lightning.pytorch as pl
import stepstream

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        loss = self.layer(batch[0]).mean()
        run().log({"loss": 1.0}, step=number)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

def run():
    return stepstream.active_run() or stepstream.start_run("ddp")

if sys.argv[1] == "before":
    # Each script begins both, and what is logged belongs to the second.
    run()
    stepstream.start_run("ddp", nested=True)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 1)), batch_size=1)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, **quiet).fit(Net(), data)
run().finish()
print("ran", run_id := stepstream.last_active_run().run_id)
"""


@pytest.mark.parametrize("begins", ["before", "meanwhile"])
async def test_the_scripts_that_lightning_starts_for_each_device_log_into_one_run(server_factory, tmp_path, begins):
    pytest.importorskip("lightning", reason="the extra `frameworks` is not installed: Lightning was left out")
    server = server_factory()
    (tmp_path / "train.py").write_text(LIGHTNING)
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": server.url,
        "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(tmp_path / "train.py"), begins]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=150, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ids = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("ran")}
    assert len(ids) == 1, done.stdout
    points = await stored.points(server.database_url, ids.pop())
    # A run that was begun before there were ranks has none in the first script.
    assert Counter(point.rank for point in points) == {None if begins == "before" else 0: 4, 1: 4}
    assert max(points.values()) == 1


FORKING = """
import json, multiprocessing, os, random, sys
import stepstream

def work(number, queue):
    random.seed(0)
    run.log({f"child{number}": float(number)}, step=number)
    queue.put([run.writer, run.rank])

random.seed(0)
run = stepstream.start_run(experiment="fork", rank=3)
run.log({"parent": 1.0}, step=0)
context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=work, args=(number, queue)) for number in range(3)]
for child in children:
    child.start()
said = [queue.get(timeout=30) for _ in children]
for child in children:
    child.join(timeout=30)
codes = [child.exitcode for child in children]
pid = os.fork()
if pid == 0:
    run.log({"forked": 9.0}, step=9)
    os._exit(0 if run.finish(timeout=20).delivered else 1)
codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
run.log({"parent": 2.0}, step=1)
report = run.finish(timeout=30)
print(json.dumps({"run_id": run.run_id, "writer": run.writer, "children": said, "codes": codes,
                  "delivered": report.delivered}))
"""


async def test_forked_children_write_for_themselves_and_double_nothing(server_factory, tmp_path):
    server = server_factory()
    environment = os.environ | {"STEPSTREAM_TRACKING_URI": server.url, "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool")}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", FORKING], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["delivered"]
    assert said["codes"] == [0, 0, 0, 0], done.stderr
    assert len({writer for writer, _ in said["children"]} | {said["writer"]}) == 4
    assert {rank for _, rank in said["children"]} == {3}
    points = await stored.points(server.database_url, said["run_id"])
    assert {(point.key, point.step, point.rank): times for point, times in points.items()} == {
        ("parent", 0, 3): 1,
        ("parent", 1, 3): 1,
        ("child0", 0, 3): 1,
        ("child1", 1, 3): 1,
        ("child2", 2, 3): 1,
        ("forked", 9, 3): 1,
    }
    rows = await stored.fetch(
        server.database_url, "SELECT writer, status FROM writers WHERE run_id = $1::text::uuid", said["run_id"]
    )
    # The children flush and go; only the process that started the run says how it ended.
    assert {row["writer"] for row in rows if row["status"] == "FINISHED"} == {said["writer"]}


async def test_512_clients_that_come_back_together_are_all_served(server_factory):
    """Each client is the real transport with the real retry rules; all of them fail first, then the server comes."""
    server = server_factory()
    server.kill()
    run_id = os.urandom(16).hex()
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(_client(server.url, run_id, number)) for number in range(CLIENTS)]
        await asyncio.sleep(1.0)
        await asyncio.to_thread(server.restart)
    failures = sum(client.result() for client in clients)
    assert failures >= CLIENTS
    # In frames or in chunks: the first are compacted after half a minute, and the last client may come so late.
    assert await stored.points(server.database_url, run_id) == Counter(
        stored.Point("value", number, 0, step, float(number * 10 + seq))
        for number in range(CLIENTS)
        for seq in range(FRAMES_EACH)
        for step in range(POINTS_EACH)
    )
    rows = await stored.fetch(server.database_url, "SELECT count(*) AS writers FROM writers")
    assert rows[0]["writers"] == CLIENTS


async def _client(url: str, run_id: str, number: int) -> int:
    delivery = Delivery(Backoff(random.Random(number).uniform))
    loop = asyncio.get_running_loop()
    for seq in range(FRAMES_EACH):
        data = _frame(run_id, number, seq)
        delivery.add(Pending(seq=seq + 1, points=POINTS_EACH, size=len(data), place=data))
    failures = 0
    async with Transport(url, None) as transport:
        while not delivery.is_idle:
            request = delivery.due(loop.time())
            if request is None:
                await asyncio.sleep(delivery.wait_s(loop.time()) or 0.01)
                continue
            try:
                answer = await transport.post([pending.place for pending in request.frames])
            except Unavailable as error:
                failures += 1
                delivery.failed(request, loop.time(), error.retry_after_s)
            else:
                assert not answer.refused
                delivery.answered(request, [index for index, _ in answer.ahead], loop.time())
    return failures


def _frame(run_id: str, number: int, seq: int) -> bytes:
    start = Start(experiment="crowd", name="crowd", time_ms=1)
    matrix = Matrix(
        keys=("value",),
        steps=np.arange(POINTS_EACH, dtype=np.int64),
        times_ms=np.full(POINTS_EACH, 1, np.int64),
        values=np.full((1, POINTS_EACH), float(number * 10 + seq)),
    )
    records = (start, matrix) if seq == 0 else (matrix,)
    return wire.encode(
        wire.Frame(run_id=run_id, writer=number + 1, seq=seq + 1, rank=number, attempt=Attempt(), records=records)
    )
