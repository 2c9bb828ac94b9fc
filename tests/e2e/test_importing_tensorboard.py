"""A folder of event files, written by tensorboardX, moved in by the command."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboardX import SummaryWriter

from tests.e2e.test_importing import ask, call_v1
from tests.servers import ServerProcess

STEPS = 300


def write(folder: Path) -> None:
    with SummaryWriter(str(folder / "first" / "train")) as writer:
        for step in range(STEPS):
            writer.add_scalar("loss/total", 1 / (step + 1), step, walltime=1000 + step)
        writer.add_scalar("loss/total", math.nan, STEPS, walltime=5000)
        writer.add_scalar("diverged", math.inf, 1, walltime=5000)
        writer.add_scalar("diverged", -math.inf, 2, walltime=5000)
        writer.add_histogram("weights", np.zeros(5), 1)
        writer.add_hparams({"lr": 0.5, "layers": 3, "name": "net"}, {"accuracy": 0.9}, name="trial")
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("at_the_root", 7.0, -1)


def run(server: ServerProcess, folder: Path, *options: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "stepstream.cli", "import", "tensorboard", str(folder), *options]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("STEPSTREAM_", "MLFLOW_"))}
    environ["STEPSTREAM_TRACKING_URI"] = server.url
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def runs(server: ServerProcess, experiment: str) -> dict[str, Any]:
    found = call_v1(server, "runs/search", experiment_names=[experiment])["runs"]
    return {one["name"]: one for one in found}


def history(server: ServerProcess, run_id: str, key: str) -> list[tuple[int, int, float]]:
    said = ask(server, f"/v1/runs/{run_id}/metrics/history?key={key.replace(' ', '%20')}")
    return list(zip(said["steps"], said["times_ms"], map(float, said["values"]), strict=True))


def test_scalars_and_hyperparameters_arrive_and_what_was_taken_is_not_taken_again(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server, folder = server_factory(), tmp_path / "logs"
    write(folder)
    said = run(server, folder)
    assert said.startswith("3 runs of 1 experiments")
    assert "1 histograms" in said
    found = runs(server, "logs")
    assert found.keys() == {"logs", "first/train", "first/train/trial"}
    train = found["first/train"]
    points = history(server, train["run_id"], "loss/total")
    assert len(points) == STEPS + 1
    assert points[1] == (1, 1_001_000, 0.5)
    assert points[-1][:2] == (STEPS, 5_000_000)
    assert math.isnan(points[-1][2])
    assert [value for _, _, value in history(server, train["run_id"], "diverged")] == [math.inf, -math.inf]
    assert (train["status"], train["start_time_ms"] > 0) == ("FINISHED", True)
    assert found["first/train/trial"]["params"] == {"lr": "0.5", "layers": "3", "name": "net"}
    assert history(server, found["logs"]["run_id"], "at_the_root")[0][0] == -1
    assert "0 runs" in run(server, folder)
    # Moved elsewhere, and gone on.
    moved = tmp_path / "archive" / "logs"
    shutil.copytree(folder, moved)
    with SummaryWriter(str(moved / "first" / "train"), filename_suffix=".more") as writer:
        writer.add_scalar("loss/total", 0.25, STEPS + 1, walltime=9000)
    assert run(server, moved).startswith("1 runs of 1 experiments")
    assert len(history(server, train["run_id"], "loss/total")) == STEPS + 2
    assert runs(server, "logs").keys() == found.keys()


def test_a_file_that_was_cut_off_brings_what_it_has(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server, folder = server_factory(), tmp_path / "logs"
    write(folder)
    (file,) = (folder / "first" / "train").glob("*tfevents*")
    file.write_bytes(file.read_bytes()[:-7000])
    run(server, folder, "--experiment", "cut")
    points = history(server, runs(server, "cut")["first/train"]["run_id"], "loss/total")
    assert 0 < len(points) < STEPS
    assert points == [(step, 1_000_000 + step * 1000, float(np.float32(1 / (step + 1)))) for step in range(len(points))]


def test_what_is_no_folder_is_said(server_factory: Callable[..., ServerProcess], tmp_path: Path) -> None:
    assert "--logdir" in run(server_factory(), tmp_path / "none", code=1)


def test_damage_and_what_cannot_be_read_are_said_and_the_rest_is_taken(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server, folder = server_factory(), tmp_path / "logs"
    write(folder)
    (file,) = (folder / "first" / "train").glob("*tfevents*")
    content = bytearray(file.read_bytes())
    # The first byte of a value, some records from the beginning.
    content[content.index(b"loss/total", 2000)] ^= 1
    file.write_bytes(content)
    odd = folder / "odd" / "events.out.tfevents.1.host"
    odd.parent.mkdir()
    odd.write_bytes(b"this is no event file" * 10)
    gone = folder / "first" / "train" / "events.out.tfevents.9999999999.host"
    gone.symlink_to(tmp_path / "nowhere")
    for taken in ("3 runs", "0 runs"):
        said = run(server, folder, code=1)
        assert taken in said
        assert f"{file}: 1 damaged records were left out" in said
        assert f"{odd}: this is no event file" in said
        assert f"{odd.parent}: there are no events in it" in said
        assert f"{gone}: No such file" in said
    assert runs(server, "logs").keys() == {"logs", "first/train", "first/train/trial"}
    steps = [step for step, _, _ in history(server, runs(server, "logs")["first/train"]["run_id"], "loss/total")]
    assert len(steps) == STEPS
    assert (steps[0], steps[-1]) == (0, STEPS)


def test_linked_folders_are_taken_once_and_a_folder_without_event_files_is_said(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server, folder = server_factory(), tmp_path / "logs"
    folder.mkdir()
    assert f"{folder} holds no event files" in run(server, folder, code=1)
    write(folder / "run")
    write(tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder / "run")
    (tmp_path / "elsewhere" / "loop").symlink_to(folder)
    assert run(server, folder).startswith("6 runs")
    names = {"run", "run/first/train", "run/first/train/trial"}
    assert runs(server, "logs").keys() == names | {name.replace("run", "linked", 1) for name in names}


def test_a_clock_that_is_odd_ends_no_import_and_makes_no_second_run(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server, folder = server_factory(), tmp_path / "logs"
    odd = [math.nan, -5.0, 1e300, math.inf, -math.inf, 1.7e15]
    with SummaryWriter(str(folder / "x")) as writer:
        writer.add_scalar("a", 0.0, 0, walltime=2000)
        for step, wall_time in enumerate(odd, 1):
            writer.add_scalar("a", 0.0, step, walltime=wall_time)
    assert f"{len(odd)} points say no time" in run(server, folder)
    before = runs(server, "logs")["x"]
    assert history(server, before["run_id"], "a") == [(step, 2_000_000, 0.0) for step in range(len(odd) + 1)]
    with SummaryWriter(str(folder / "x"), filename_suffix=".more") as writer:
        writer.add_scalar("a", 1.0, 10, walltime=1000)
    assert run(server, folder).startswith("1 runs")
    after = runs(server, "logs")
    assert after.keys() == {"x"}
    assert after["x"]["run_id"] == before["run_id"]
    assert history(server, before["run_id"], "a")[-1] == (10, 1_000_000, 1.0)
    # Which run it is, only the first file says.
    (folder / "x" / "events.out.tfevents.0").symlink_to(tmp_path / "nowhere")
    assert f"{folder / 'x'} was left out" in run(server, folder, code=1)
    assert runs(server, "logs").keys() == {"x"}


def test_names_that_would_have_one_key_have_two(server_factory: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server, folder = server_factory(), tmp_path / "logs"
    # tensorboardX changes such names itself, as TensorFlow does not.
    writer = EventFileWriter(str(folder))
    for step in range(2):
        values = [summary_pb2.Summary.Value(tag=f"loss{a}train{b}", simple_value=ord(a)) for a, b in ("()", "[]")]
        writer.add_event(event_pb2.Event(wall_time=1000, step=step, summary={"value": values}))
    writer.close()
    assert "'loss[train]' is called 'loss_train_-" in run(server, folder)
    one = runs(server, "logs")["logs"]
    first, second = sorted(one["metrics"])
    assert [value for _, _, value in history(server, one["run_id"], first)] == [ord("("), ord("(")]
    assert [value for _, _, value in history(server, one["run_id"], second)] == [ord("["), ord("[")]
