"""A handle that is copied is itself; one that is sent to another process joins the run, and does not end it."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import stepstream
from stepstream import active
from stepstream.run import Run
from tests.e2e.test_ending import points, statuses
from tests.e2e.test_sdk import environment
from tests.servers import ServerProcess

IN_A_SPAWNED_CHILD = """
import copy, multiprocessing, sys
import stepstream

class Dataset:
    def __init__(self, run):
        self.run, self.again = run, copy.deepcopy(run)

def work(dataset, info):
    assert dataset.run is dataset.again is stepstream.active_run()
    assert info.run_id == dataset.run.run_id
    dataset.run.log({"child": 1.0}, step=0)
    stepstream.log_metric("child", 2.0, step=1)
    if sys.argv[5] == "finish":
        assert dataset.run.finish().delivered

if __name__ == "__main__":
    run = stepstream.start_run(experiment="spawned", tracking_uri=sys.argv[1], token=sys.argv[2], spool_dir=sys.argv[3])
    run.log({"parent": 1.0}, step=0)
    child = multiprocessing.get_context(sys.argv[4]).Process(target=work, args=(Dataset(run), run.info))
    child.start()
    child.join()
    assert child.exitcode == 0
    run.flush()
    client = stepstream.MlflowClient(sys.argv[1])
    said = client.get_run(run.run_id)
    print(said.info.status, sorted(said.data.metrics.items()), said.info.experiment_id == run.info.experiment_id)
    run.finish()
    print(client.get_run(run.run_id).info.status)
"""


@pytest.mark.parametrize(("method", "end"), [("spawn", "finish"), ("spawn", "leave"), ("fork", "leave")])
def test_a_child_that_is_sent_a_run_logs_to_it_and_leaves_it_open(
    server_factory: Callable[..., ServerProcess], tmp_path: Path, method: str, end: str
) -> None:
    server = server_factory()
    script = tmp_path / "train.py"
    script.write_text(IN_A_SPAWNED_CHILD)
    command = [sys.executable, str(script), server.url, "unused", str(tmp_path / "spool"), method, end]
    done = subprocess.run(command, env=environment(None, tmp_path), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["RUNNING [('child', 2.0), ('parent', 1.0)] True", "FINISHED"]


def test_a_child_that_is_sent_a_run_that_goes_on_says_the_servers_experiment(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text("""
import multiprocessing, stepstream

def work(run):
    print(run.info.run_name, run.info.experiment_id, run.info.artifact_uri, flush=True)

if __name__ == "__main__":
    client = stepstream.MlflowClient()
    made = client.create_run(client.create_experiment("elsewhere"), run_name="named")
    run = stepstream.start_run(run_id=made.info.run_id)
    work(run)
    child = multiprocessing.get_context("spawn").Process(target=work, args=(run,))
    child.start()
    child.join()
    print([one.name for one in client.search_experiments(order_by="name ASC")])
""")
    environ = environment(server_factory(), tmp_path)
    done = subprocess.run([sys.executable, str(script)], env=environ, capture_output=True, text=True, timeout=100)
    parent, child, experiments = done.stdout.splitlines()
    assert parent == child, done.stderr
    assert parent.startswith("named ")
    assert experiments == "['Default', 'elsewhere']"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return stepstream.start_run(tracking_uri="http://127.0.0.1:9", spool_dir=tmp_path, token="secret")


def test_a_copy_of_a_handle_is_the_handle(run: Run) -> None:
    assert copy.copy(run) is copy.deepcopy({"run": run})["run"] is pickle.loads(pickle.dumps(run)) is run
    assert copy.deepcopy(run.info) is run.info is pickle.loads(pickle.dumps(run.info))
    run.finish(timeout=0.1)


def test_what_is_kept_of_a_handle_holds_no_token_and_joins_by_its_id(run: Run, tmp_path: Path) -> None:
    kept = pickle.dumps({"run": run, "info": run.info})
    assert b"secret" not in kept
    run.log({"loss": 1.0}, step=0)
    run.finish("KILLED", timeout=0.1)
    (tmp_path / "checkpoint").write_bytes(kept)
    read = """
import pickle, sys, stepstream
found = pickle.load(open(sys.argv[1], "rb"))
run, info = found["run"], found["info"]
assert info is run.info
assert stepstream.active_run() is None
run.log({"loss": 2.0}, step=1)
print(run.run_id, run.name, run.status, info.run_name, run.finish(timeout=0.1).points_left)
"""
    command = [sys.executable, "-c", read, str(tmp_path / "checkpoint")]
    done = subprocess.run(command, env=os.environ | {}, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [run.run_id, run.name, "RUNNING", run.name, "1"], done.stderr
    assert (points(tmp_path), statuses(tmp_path)) == (2, ["KILLED"])
    assert active.by_id(run.run_id) is None
