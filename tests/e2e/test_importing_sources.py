"""`stepstream import mlflow` of sources of all kinds, and again after they have gone on. One server for all of them."""

import importlib.metadata
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.importing_scene import Scene

# The server of another version of MLflow, on a folder, as one process.
SERVE = """
import os, sys
os.environ["_MLFLOW_SERVER_FILE_STORE"] = os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = sys.argv[1]
from werkzeug.serving import make_server
from mlflow.server import app
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def mlflow2(tmp_path: Path) -> Iterator[str]:
    python = os.environ.get("STEPSTREAM_TEST_MLFLOW2")
    if not python:
        pytest.skip("STEPSTREAM_TEST_MLFLOW2 names no Python with MLflow 2: its server was left out")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with subprocess.Popen(
        [python, "-c", SERVE, str(tmp_path / "two")], stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


def needs_logged_models() -> None:
    if not importlib.metadata.version("mlflow").startswith("3."):
        pytest.skip("MLflow 3 (the extra `frameworks`) is not installed: logged models were left out")


def test_a_server_of_mlflow_2_has_no_logged_models(scene: Scene, mlflow2: str) -> None:
    script = """
run = client.create_run(client.create_experiment("two"), run_name="old").info.run_id
client.log_metric(run, "loss", 0.5, step=3)
client.set_terminated(run)
imported("--artifacts", "reference")
tell(run)
"""
    ((code, said, problems),), run_id = scene.play(script, mlflow2)
    assert (code, problems) == (0, "")
    assert said.startswith("1 runs of 2 experiments")
    history = scene.ask("/api/2.0/mlflow/metrics/get-history", run_id=run_id, metric_key="loss")["metrics"]
    assert [(point["step"], point["value"]) for point in history] == [(3, 0.5)]


def test_artifacts_that_cannot_be_listed_end_nothing(scene: Scene) -> None:
    script = """
names = {"away": "s3://no-such-bucket-of-stepstream/p", "near": f"file://{folder}/near"}
runs = []
for name, place in names.items():
    run = client.create_run(client.create_experiment(name, artifact_location=place), run_name=name).info.run_id
    client.log_metric(run, "loss", 1.0)
    client.set_terminated(run)
    runs.append(run)
client.log_text(runs[1], "words", "near.txt")
imported()
imported()
tell(runs)
"""
    (first, second), runs = scene.play(script)
    for code, _, problems in (first, second):
        assert code == 1
        assert f"artifacts of run {runs[0]} were left out: they cannot be listed" in problems
        assert "Traceback" not in problems
    assert scene.paths(runs[1]) == ["near.txt"]
    assert first[1].startswith("2 runs of 3 experiments")
    assert second[1].startswith("1 runs of 3 experiments"), "what could not be listed is asked for again"


def test_a_models_file_that_is_refused_here_is_said_and_the_others_come(scene: Scene) -> None:
    script = """
experiment = client.create_experiment("odd files", artifact_location=f"file://{folder}/odd")
model = client.create_logged_model(experiment, "net")
place = Path(model.artifact_location.removeprefix("file://"))
place.mkdir(parents=True)
for name in ("a\\\\b.txt", "plain.txt"):
    (place / name).write_text("words")
client.finalize_logged_model(model.model_id, "READY")
imported()
tell(model.model_id)
"""
    needs_logged_models()
    ((code, said, problems),), model_id = scene.play(script)
    assert code == 1
    assert f"b.txt of the logged model {model_id} was left out" in problems
    assert "1 files; " in said
    listed = scene.ask(f"/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories")["files"]
    assert [file["path"] for file in listed] == ["plain.txt"]


def test_what_runs_of_other_experiments_measured_of_a_model_comes_along(scene: Scene) -> None:
    script = """
from mlflow.entities import LoggedModelInput, LoggedModelOutput
trained = client.create_experiment("trained", artifact_location=f"file://{folder}/a")
measured = client.create_experiment("measured", artifact_location=f"file://{folder}/b")
run = client.create_run(trained, run_name="train").info.run_id
model = client.create_logged_model(trained, "net", run).model_id
client.log_outputs(run, [LoggedModelOutput(model, 0)])
client.finalize_logged_model(model, "READY")
other = client.create_run(measured, run_name="measure").info.run_id
client.log_inputs(other, models=[LoggedModelInput(model)])
client.log_metric(other, "accuracy", 0.9, step=1, model_id=model)
imported("--experiment", "measured")
imported()
imported()
tell(model)
"""
    needs_logged_models()
    (alone, both, again), model_id = scene.play(script)
    assert (alone[0], both[0], again[0]) == (0, 0, 0), alone[2] + both[2] + again[2]
    assert again[1].startswith("0 runs")
    (metric,) = scene.ask(f"/v1/logged-models/{model_id}")["metrics"]
    assert (metric["key"], metric["value"], metric["step"]) == ("accuracy", 0.9, 1)


def test_a_second_import_brings_files_and_points_that_came_since(scene: Scene) -> None:
    script = """
run = client.create_run(client.create_experiment("goes on", artifact_location=f"file://{folder}/on")).info.run_id
client.log_metric(run, "loss", 1.0, step=10)
client.log_text(run, "a", "first.txt")
client.set_terminated(run)
imported()
client.log_text(run, "weights", "model/later.bin")
imported()
client.log_metric(run, "loss", 5.0, step=3)
imported()
imported()
imported("--again")
tell(run)
"""
    runs, run_id = scene.play(script)
    assert [said.partition(" of ")[0] for _, said, _ in runs] == ["1 runs", "1 runs", "1 runs", "0 runs", "1 runs"]
    assert scene.paths(run_id) == ["first.txt", "model/later.bin"]
    history = scene.ask("/api/2.0/mlflow/metrics/get-history", run_id=run_id, metric_key="loss")["metrics"]
    assert sorted(point["step"] for point in history) == [3, 10]


def test_a_second_import_brings_tags_of_models_and_their_files_when_they_change(scene: Scene) -> None:
    script = """
model = client.create_logged_model(client.create_experiment("tags", artifact_location=f"file://{folder}/tags"), "net")
(folder / "one.txt").write_text("1")
client.log_model_artifact(model.model_id, str(folder / "one.txt"))
client.finalize_logged_model(model.model_id, "READY")
imported()
client.set_logged_model_tags(model.model_id, {"later": "yes"})
imported()
(folder / "two.txt").write_text("2")
client.log_model_artifact(model.model_id, str(folder / "two.txt"))
imported()
imported()
tell(model.model_id)
"""
    needs_logged_models()
    runs, model_id = scene.play(script)
    told = [(said.split()[11], said.partition("already; ")[2].split()[0]) for _, said, _ in runs]
    assert told == [("1", "1"), ("0", "1"), ("2", "1"), ("0", "0")], runs
    assert scene.ask(f"/v1/logged-models/{model_id}")["tags"]["later"] == "yes"
    listed = scene.ask(f"/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories")["files"]
    assert [file["path"] for file in listed] == ["one.txt", "two.txt"]


def test_what_is_not_there_is_said_and_what_is_odd_is_taken(scene: Scene) -> None:
    script = """
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.entities import Dataset, DatasetInput
experiment = client.create_experiment("elsewhere", artifact_location="file:///no/such/disk")
elsewhere = client.create_run(experiment).info.run_id
rich = client.create_run(client.create_experiment("rich", artifact_location=f"file://{folder}/rich")).info.run_id
for number in range(20):
    dataset = Dataset(f"n{number}", f"d{number}", "local", "source", schema="s" * 1_000_000)
    client.log_inputs(rich, datasets=[DatasetInput(dataset, [])])
name = "it's \\"odd\\""
client.create_registered_model(name)
client.create_model_version(name, "s3://theirs/v1")
imported("--experiment", "no such")
imported()
found = json.loads(urllib.request.urlopen(f"{server}/api/2.0/mlflow/model-versions/search").read())
tell(elsewhere, rich, [one["version"] for one in found["model_versions"] if one["name"] == name])
"""
    (typo, everything), elsewhere, rich, versions = scene.play(script)
    assert typo[0] == 1
    assert "there is no experiment 'no such' in the source" in typo[2]
    assert everything[0] == 1
    assert everything[2].strip().startswith(f"artifacts of run {elsewhere} were left out: there is no folder /no/such")
    assert versions == ["1"]
    run = scene.ask("/api/2.0/mlflow/runs/get", run_id=rich)["run"]
    assert len(run["inputs"]["dataset_inputs"]) == 20
