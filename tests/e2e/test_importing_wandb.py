"""Offline runs, written by the real `wandb`, moved in by the command."""

import importlib.metadata
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stepstream.errors import QueryError
from stepstream.importing.wandb_source import WandbSource
from stepstream_schema import paths
from tests.e2e.proxy import in_thread
from tests.e2e.test_importing import ask, call_v1
from tests.servers import ServerProcess

STEPS, MANY, LENGTH = 300, 8, 500

WANDB = """
import math, os, signal, sys
import numpy as np
import wandb
def begin(**more):
    return wandb.init(dir=sys.argv[1], settings=wandb.Settings(console="off"), **more)
"""

# Everything that a run may say, one that ends well and one that is killed.
EVERYTHING = """
config = {"lr": 0.1, "net": {"layers": 3, "deep": {"act": "relu"}}, "sizes": [1, 2], "none": None, "odd (key)": True}
about = {"id": "first", "name": "first run", "notes": "some words", "tags": ["good", "night"]}
run = begin(project="vision", entity="team", config=config, group="g", job_type="train", **about)
run.define_metric("val/*", step_metric="epoch")
run.define_metric("loss", summary="min")
for step in range(STEPS):
    odd = {"even": step % 2 == 0, "nested": {"a": {"b": step}}}
    run.log({"loss": 1 / (step + 1), "val/x": np.float32(step), "epoch": step // 10, **odd})
run.log({"diverged": math.nan, "up": math.inf, "down": -math.inf, "odd (key)": 2**60}, step=1000)
black = wandb.Image(np.zeros((4, 4, 3), np.uint8))
run.log({"word": "hey", "image": black, "histogram": wandb.Histogram([1, 2]), "list": [1, 2]}, step=1001)
run.log({"table": wandb.Table(columns=["a"], data=[[1]])}, step=1001)
run.summary["best"] = 0.99
run.summary["verdict"] = "fine"
run.config.update({"added": 5})
artifact = wandb.Artifact("data", type="dataset")
with artifact.new_file("rows.csv") as file:
    file.write("1,2")
run.log_artifact(artifact)
run.finish(exit_code=1)
run = begin(project="speech", id="well")
run.log({"a": 1})
run.finish()
run = begin(project="vision", id="dead", name="killed")
for step in range(STEPS * 10):
    run.log({"a": step})
os.kill(os.getpid(), signal.SIGKILL)
""".replace("STEPS", str(STEPS))

RESUMED = """
run = begin(project="speech", id="well", config={"lr": 2}, resume="allow")
run.log({"a": 2}, step=10)
run.finish()
"""

LONG = """
for number in range(MANY):
    run = begin(project="long", name=f"run {number}", config={"number": number})
    for step in range(LENGTH):
        run.log({"a": step * number, "b": step})
    run.finish()
""".replace("MANY", str(MANY)).replace("LENGTH", str(LENGTH))


def write(folder: Path, program: str, code: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DATA_DIR": str(folder / "staging")}
    command = [sys.executable, "-c", WANDB + program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ)
    assert done.returncode == code, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module", autouse=True)
def wandb() -> None:
    try:
        importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("wandb is not installed (the extra `frameworks`): moving in from Weights & Biases was left out")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("everything"), EVERYTHING, -signal.SIGKILL)


@pytest.fixture
def everything(written: Path, tmp_path: Path) -> Path:
    """A copy for each test to change."""
    return Path(shutil.copytree(written / "wandb", tmp_path / "copy" / "wandb", symlinks=True))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("long"), LONG)


def start(server: ServerProcess, folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stepstream.cli", "import", "wandb", str(folder), *options]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("STEPSTREAM_", "MLFLOW_"))}
    environ["STEPSTREAM_TRACKING_URI"] = server.url
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def run(server: ServerProcess, folder: Path, *options: str, code: int = 0) -> str:
    process = start(server, folder, *options)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == code, said + errors
    return said + errors


def runs(server: ServerProcess, experiment: str) -> dict[str, Any]:
    found = call_v1(server, "runs/search", experiment_names=[experiment])["runs"]
    return {one["name"]: one for one in found}


def begun(server: ServerProcess, experiment: str) -> int:
    try:
        return len(runs(server, experiment))
    except urllib.error.HTTPError:
        return 0  # the experiment is not there yet


def history(server: ServerProcess, one: Any, key: str) -> list[tuple[int, float]]:
    said = ask(server, f"/v1/runs/{one['run_id']}/metrics/history?key={quote(key)}")
    times = said["times_ms"]
    assert times == sorted(times)
    assert all(one["start_time_ms"] <= time_ms <= one["end_time_ms"] for time_ms in times)
    return list(zip(said["steps"], map(float, said["values"]), strict=True))


def files(server: ServerProcess, one: Any) -> dict[str, int]:
    listed = ask(server, f"/v1/runs/{one['run_id']}/artifacts?recursive=1")["files"]
    return {file["path"]: file["size"] for file in listed}


def log_of(folder: Path, run_id: str) -> Path:
    (file,) = folder.glob(f"offline-run-*/run-{run_id}.wandb")
    return file


def check_first(server: ServerProcess) -> Any:
    one = runs(server, "vision")["first run"]
    assert (one["status"], one["end_time_ms"] > one["start_time_ms"] > 1e12) == ("FAILED", True)
    expected = {"lr": "0.1", "net.layers": "3", "net.deep.act": "relu", "sizes": "[1, 2]", "none": "None", "added": "5"}
    assert one["params"] == expected | {"odd _key_": "True"}
    tags = {"good": "true", "night": "true", "mlflow.note.content": "some words", "wandb.group": "g"}
    tags |= {"wandb.job_type": "train", "wandb.entity": "team", "wandb.project": "vision"}
    assert tags.items() <= one["tags"].items()
    assert history(server, one, "loss") == [(step, 1 / (step + 1)) for step in range(STEPS)]
    assert history(server, one, "val/x") == [(step, step) for step in range(STEPS)]
    assert history(server, one, "even") == [(step, step % 2 == 0) for step in range(STEPS)]
    assert history(server, one, "nested.a.b") == [(step, step) for step in range(STEPS)]
    ((step, value),) = history(server, one, "diverged")
    assert (step, math.isnan(value)) == (1000, True)
    assert history(server, one, "up") == [(1000, math.inf)]
    assert history(server, one, "down") == [(1000, -math.inf)]
    assert history(server, one, "odd _key_") == [(1000, 2**60)]
    assert history(server, one, "best") == [(1001, 0.99)]
    assert history(server, one, "loss.min") == [(1001, 1 / STEPS)]
    assert history(server, one, "system/memory_percent")[0][0] == 0
    assert history(server, one, "epoch") == [(step, step // 10) for step in range(STEPS)]
    plain = {key for key in one["metrics"] if not key.startswith("system/")}
    named = {"loss", "loss.min", "val/x", "epoch", "even", "nested.a.b", "diverged", "up", "down", "odd _key_", "best"}
    assert plain == named
    return one


def test_everything_arrives_and_what_was_taken_is_not_taken_again(
    server_factory: Callable[..., ServerProcess], everything: Path
) -> None:
    server = server_factory()
    said = run(server, everything.parent)
    assert said.startswith("3 runs of 2 experiments")
    # A word, an image, a histogram, a list, a table; and the verdict of the summary.
    assert "6 texts, images" in said
    assert "1 versions of W&B's artifacts" in said
    one = check_first(server)
    there = files(server, one)
    kept = log_of(everything, "first").parent / "files"
    assert there == {
        file.relative_to(kept).as_posix(): file.stat().st_size for file in kept.rglob("*") if file.is_file()
    }
    assert any(path.startswith("media/images/image") for path in there)
    assert runs(server, "speech")["well"]["status"] == "FINISHED"
    killed = runs(server, "vision")["killed"]
    points = history(server, killed, "a")
    assert 0 < len(points) <= STEPS * 10
    assert points == [(step, step) for step in range(len(points))]
    assert killed["status"] == "FAILED"
    again = run(server, everything)
    assert again.startswith("0 runs of 2 experiments")
    assert "3 runs were here already" in again
    assert check_first(server) == one


def test_a_run_that_was_resumed_brings_what_is_new_from_wherever_it_lies(
    server_factory: Callable[..., ServerProcess], everything: Path, tmp_path: Path
) -> None:
    server = server_factory()
    run(server, everything)
    before = runs(server, "speech")["well"]
    moved = shutil.move(everything, tmp_path / "archive")
    # Its files once more: a backup must not count twice.
    shutil.copytree(moved, tmp_path / "archive" / "backup", symlinks=True)
    write(tmp_path / "archive", RESUMED)
    said = run(server, tmp_path / "archive")
    assert said.startswith("1 runs of 2 experiments")
    after = runs(server, "speech")["well"]
    assert (after["run_id"], after["params"]) == (before["run_id"], {"lr": "2"})
    assert after["end_time_ms"] > before["end_time_ms"]
    assert history(server, after, "a") == [(0, 1), (10, 2)]
    assert [step for step, _ in history(server, after, "system/memory_percent")] == [0, 0]
    assert "0 runs" in run(server, tmp_path / "archive")


def test_a_file_that_was_cut_off_brings_what_it_has_and_later_the_rest(
    server_factory: Callable[..., ServerProcess], everything: Path
) -> None:
    server, file = server_factory(), log_of(everything, "first")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert run(server, file).startswith("1 runs of 1 experiments")
    cut = runs(server, "vision")["first run"]
    points = history(server, cut, "loss")
    assert 0 < len(points) < STEPS
    assert points == [(step, 1 / (step + 1)) for step in range(len(points))]
    assert cut["status"] == "FAILED"
    file.write_bytes(whole)
    assert run(server, file).startswith("1 runs of 1 experiments")
    grown = runs(server, "vision")["first run"]
    assert grown["run_id"] == cut["run_id"]
    assert history(server, grown, "loss") == [(step, 1 / (step + 1)) for step in range(STEPS)]
    assert history(server, grown, "best") == [(1001, 0.99)]


def test_an_import_that_was_killed_goes_on(server_factory: Callable[..., ServerProcess], long: Path) -> None:
    server = server_factory()
    with in_thread(server.port) as proxy:
        # It cannot be over before it is killed, however late this test looks: each run begins with a frame.
        proxy.hold, proxy.passes = f"POST {paths.FRAMES} ".encode(), MANY - 2
        process = start(server, long, "--artifacts", "reference", "--tracking-uri", proxy.url)
        deadline = time.monotonic() + 120
        while begun(server, "long") < MANY // 2:
            assert process.poll() is None, "it has ended by itself"
            assert time.monotonic() < deadline, "it has not come so far in time"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert MANY // 2 <= len(runs(server, "long")) < MANY, "it was over before it was killed"
    said = run(server, long, "--artifacts", "reference")
    taken = int(said.split()[0])
    assert 0 < taken < MANY, "nothing was skipped"
    found = runs(server, "long")
    assert len(found) == MANY
    for number in range(MANY):
        one = found[f"run {number}"]
        assert (one["status"], one["params"]) == ("FINISHED", {"number": str(number)})
        assert history(server, one, "a") == [(step, step * number) for step in range(LENGTH)]
        assert history(server, one, "b") == [(step, step) for step in range(LENGTH)]
        assert files(server, one) == {}
        assert one["tags"]["stepstream.imported.artifact_uri"].endswith("/files")


def test_what_cannot_be_read_is_said_and_the_rest_is_taken(
    server_factory: Callable[..., ServerProcess], everything: Path
) -> None:
    server = server_factory()
    (log_of(everything, "well").parent / "files" / "gone.pt").symlink_to(everything / "nowhere")
    odd = everything / "run-text.wandb"
    odd.write_text("this is no file of W&B's")
    dangling = everything / "run-dangling.wandb"
    dangling.symlink_to(everything / "nowhere")
    empty = everything / "run-empty.wandb"
    empty.touch()
    damaged = log_of(everything, "dead")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:200_000] + b"x" * 100 + content[200_100:])
    for taken in ("3 runs", "0 runs"):
        said = run(server, everything, code=1)
        assert taken in said
        assert ("gone.pt of run 'well' was left out" in said) == (taken == "3 runs")
        assert f"{odd}: " in said
        assert "header" in said
        assert f"{dangling}: No such file" in said
        assert f"{empty}: there is no run in it" in said
        assert f"{damaged}: skipped corrupt data" in said
    check_first(server)
    assert files(server, runs(server, "speech")["well"]).keys() == {"requirements.txt"}
    points = history(server, runs(server, "vision")["killed"], "a")
    assert len(points) > STEPS
    assert all(step == value for step, value in points)


def test_a_param_that_has_changed_since_stays_and_is_said(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = server_factory()
    run(server, write(tmp_path, RESUMED), "--experiment", "all")
    write(tmp_path, RESUMED.replace("2}", "3}"))
    assert "param lr of run" in run(server, tmp_path, "--experiment", "all", code=1)
    assert runs(server, "all")["well"]["params"] == {"lr": "2"}


def test_the_link_to_the_latest_run_will_do_and_a_folder_without_runs_is_said(
    server_factory: Callable[..., ServerProcess], everything: Path, tmp_path: Path
) -> None:
    server = server_factory()
    assert run(server, everything / "latest-run", "--experiment", "one").startswith("1 runs of 1 experiments")
    assert runs(server, "one").keys() == {"killed"}
    for place in (tmp_path / "copy" / "wandb" / "latest-run" / "files", tmp_path / "none"):
        assert f"{place} holds no run-*.wandb file" in run(server, place, code=1)


def test_a_run_whose_file_goes_away_meanwhile_does_not_pass_for_complete(everything: Path) -> None:
    source = WandbSource(log_of(everything, "well"), None, lambda read, files: None)
    (experiment,) = source.experiments()
    (one,) = source.runs(experiment)
    shutil.rmtree(log_of(everything, "well").parent)
    with pytest.raises(QueryError, match="goes on from there"):
        list(source.points(one))
