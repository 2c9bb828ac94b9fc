"""MLflow's names in our own package: classical scripts, by it and by the real one, against the same server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_mlflow_client import python_with
from tests.servers import ServerProcess
from tests.warm import WarmPython

SCRIPT = "mlflow_classical.py"
MODELS = """
import io, json, sys
import stepstream as mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_registry_uri(mlflow.get_registry_uri())
try:
    mlflow.set_registry_uri("http://127.0.0.1:9")
except mlflow.MlflowException as error:
    print("refused" in str(error) or "registry" in str(error))
mlflow.set_experiment("models")
with mlflow.start_run() as run:
    mlflow.log_stream(io.BytesIO(b"bytes"), "deep/stream.bin")
    model = mlflow.initialize_logged_model("net", source_run_id=run.info.run_id, tags={"a": "1"}, params={"k": 2})
    mlflow.log_model_params({"depth": 3}, model.model_id)
    mlflow.set_logged_model_tags(model.model_id, {"b": "2"})
    mlflow.delete_logged_model_tag(model.model_id, "a")
    mlflow.log_outputs([mlflow.entities.LoggedModelOutput(model.model_id, 7)])
    mlflow.finalize_logged_model(model.model_id, "READY")
mlflow.set_experiment_tag("team", "x")
mlflow.set_experiment_tag("gone", "x")
mlflow.delete_experiment_tag("gone")
made = mlflow.get_run(run.info.run_id).outputs.model_outputs
stream = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="deep/stream.bin")
table = mlflow.search_logged_models(filter_string="name = 'net'", order_by=[{"field_name": "creation_time"}])
listed = mlflow.search_logged_models(output_format="list")
print(json.dumps({
    "table": [table["name"].tolist(), table["status"].tolist(), table["source_run_id"].tolist() == [run.info.run_id]],
    "listed": [dict(one.tags) | dict(one.params) for one in listed],
    "made": [(one.model_id == model.model_id, one.step) for one in made],
    "experiment": dict(mlflow.get_experiment_by_name("models").tags),
    "stream": open(stream).read(),
    "none": len(mlflow.search_logged_models(filter_string="name = 'other'")),
}))
"""
OFFLINE = """
import sys, time
import numpy as np
import stepstream as mlflow
began = time.monotonic()
mlflow.set_tracking_uri("http://127.0.0.1:9")
experiment = mlflow.set_experiment("away")
mlflow.log_metric("before", 1.0)
mlflow.end_run()
with mlflow.start_run(run_name="parent") as run:
    with mlflow.start_run(nested=True):
        mlflow.log_metric("loss", object())
        mlflow.log_metric("loss", 1.0, step="no step")
        mlflow.log_metric("loss", 1.0, step=np.array([1, 2]))
        mlflow.log_metric(["no key"], 1.0)
        mlflow.log_param({}, 1)
        mlflow.set_tag({}, 1)
        mlflow.log_metric("loss", 1.0, timestamp="no time")
        mlflow.log_params({"": 1, "good": 2})
        mlflow.set_tags({"a": "b"})
        mlflow.delete_tag("a")
        mlflow.log_input({"name": ""})
        mlflow.log_input({"name": "d", "digest": "1"}, "training")
        mlflow.log_text("x", "x.txt")
    assert run.info.run_name == "parent" and len(run.info.run_id) == 32 and run.info.status == "RUNNING"
print(experiment.name)
try:
    mlflow.get_run(run.info.run_id)
except mlflow.exceptions.MlflowException as error:
    print(error.error_code)
"""


def environment(server: ServerProcess | None, spool: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEPSTREAM_", "MLFLOW_"))}
    own = {"STEPSTREAM_SPOOL_DIR": str(spool), "STEPSTREAM_SPOOL_MIN_FREE_BYTES": "0"}
    return kept | own | ({"STEPSTREAM_TRACKING_URI": server.url} if server is not None else {})


def python(script: str, environ: dict[str, str], *arguments: str, directory: Path | None = None) -> str:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, cwd=directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def own(server: ServerProcess, spool: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name(SCRIPT)), "stepstream", server.url]
    done = subprocess.run(command, env=environment(None, spool), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_classical_script_finds_what_it_has_logged(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    found = own(server_factory(), tmp_path)
    assert found["run"]["metrics"] == {"a": 1.0, "b": 2.5, "late": 7.0, "loss": 0.01, "odd": "nan"}
    assert found["run"]["params"] == {"layers": "3", "lr": "0.1", "name": "None"}
    assert found["order"] == [0.01, 4.0, 5.0, 9.0, 100.0, 101.0, 102.0]
    assert (found["parent"], found["listed"]) == ("parent", ["parent"])
    assert found["history"] == [[0, 1.0], [1, 0.5], [2, 1 / 3], [3, 0.25], [9, 0.01]]
    assert found["tree"] == ["one.txt", "sub/two.txt"]
    assert found["stages"] == [[1, "Production"], [2, "Archived"]]


@pytest.mark.parametrize("version", ["3", "2"])
def test_a_classical_script_finds_the_same_by_our_package_and_by_mlflows(
    python_of_mlflow: Callable[[str], WarmPython],
    server_factory: Callable[..., ServerProcess],
    tmp_path: Path,
    version: str,
) -> None:
    interpreter = python_with(version)
    found = own(server_factory(), tmp_path)
    server = server_factory()
    # The script takes the package first.
    script = Path(__file__).with_name(SCRIPT)
    environ = environment(None, tmp_path) | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    done = python_of_mlflow(interpreter).run(str(script), "mlflow", server.url, environ=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == found


def test_logged_models_streams_and_the_tags_of_an_experiment_by_module_level_functions(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    told, found = python(MODELS, environment(None, tmp_path), server_factory().url).splitlines()
    assert told == "True"
    assert json.loads(found) == {
        "table": [["net"], ["READY"], True],
        "listed": [{"b": "2", "k": "2", "depth": "3"}],
        "made": [[True, 7]],
        "experiment": {"team": "x"},
        "stream": "bytes",
        "none": 0,
    }


def test_what_logs_neither_waits_nor_raises_while_the_server_is_away(tmp_path: Path) -> None:
    began = time.monotonic()
    said = python(OFFLINE, environment(None, tmp_path) | {"STEPSTREAM_FINISH_TIMEOUT": "0.2"})
    assert said.split() == ["away", "TEMPORARILY_UNAVAILABLE"]
    # Each connection is refused at once, so that nothing but finish() and the last question may have waited.
    assert time.monotonic() - began < 60
    # Under whatever name: a later run of this process may have taken what an earlier one left.
    assert len([one for one in tmp_path.iterdir() if one.is_file()]) == 3


def test_a_run_says_its_script_its_commit_and_its_datasets(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server, repository = server_factory(), tmp_path / "repository"
    repository.mkdir()
    script = repository / "train.py"
    script.write_text("""
import numpy as np, pandas
import stepstream
with stepstream.start_run(experiment="code") as run:
    table = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    run.log_input(stepstream.data.from_pandas(table, "s3://bucket/table.csv", name="table"), "training")
    run.log_input(stepstream.data.from_numpy(np.zeros((4, 2)), name="zeros"), tags={"k": "v"})
    stepstream.log_input({"name": "named", "digest": "d"}, "eval")
print(run.run_id)
""")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q", "-b", "trunk"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://who:secret@example.org/r.git"], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    environ = environment(server, tmp_path / "spool")
    run_id = subprocess.check_output([sys.executable, str(script)], env=environ, text=True).strip()
    read = f"import json, stepstream; r = stepstream.get_run('{run_id}'); print(json.dumps(r.to_dictionary()))"
    run = json.loads(python(read, environ))
    tags = run["data"]["tags"]
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.repoURL"] == "https://example.org/r.git"
    assert tags["mlflow.source.git.dirty"] == "false"
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == (str(script), "LOCAL")
    inputs = {one["dataset"]["name"]: one for one in run["inputs"]["dataset_inputs"]}
    assert inputs.keys() == {"table", "zeros", "named"}
    assert inputs["table"]["tags"] == [{"key": "mlflow.data.context", "value": "training"}]
    assert json.loads(inputs["table"]["dataset"]["source"]) == {"uri": "s3://bucket/table.csv"}
    assert json.loads(inputs["zeros"]["dataset"]["profile"]) == {"num_rows": 4}
    assert inputs["named"]["dataset"]["digest"] == "d"


def test_a_fork_does_not_wait_for_a_slow_git(tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    # It goes on when it may, or when the test is over, and not before: loading the modules may take any time.
    slow.write_text(f"#!/bin/sh\nwhile [ -d {slow.parent} ] && [ ! -e {tmp_path}/go ]; do sleep 0.1; done\n")
    slow.chmod(0o755)
    script = """
import os, sys, stepstream
run = stepstream.start_run()
assert run._writer.loaded.wait(60)
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
print(run._writer.described.is_set(), flush=True)
open(sys.argv[1], "w").close()
os._exit(0)
"""
    environ = environment(None, tmp_path / "spool")
    environ |= {"PATH": f"{slow.parent}:{environ['PATH']}"}
    assert python(script, environ, str(tmp_path / "go"), directory=tmp_path).split() == ["False"]


def test_figures_images_and_models_of_the_client(server_factory: Callable[..., ServerProcess], tmp_path: Path) -> None:
    script = """
import stepstream as mlflow
class Figure:
    def savefig(self, out, format, **options): out.write(b"figure " + format.encode())
with mlflow.start_run(experiment="f") as run:
    mlflow.log_figure(Figure(), "plots/loss.svg")
client = mlflow.MlflowClient()
client.log_figure(run.info.run_id, Figure(), "plots/other.png")
client.log_dict(run.info.run_id, {"a": 1}, "d.json")
print(sorted((one.path, one.file_size) for one in client.list_artifacts(run.info.run_id, "plots")))
model = client.create_logged_model(run.info.experiment_id, "net", run.info.run_id, params={"d": 1}, tags={"t": 2})
client.log_model_params(model.model_id, {"w": 9})
client.set_logged_model_tags(model.model_id, {"u": 3})
client.delete_logged_model_tag(model.model_id, "t")
print(client.finalize_logged_model(model.model_id, "READY").status, mlflow.get_logged_model(model.model_id).params)
found = client.search_logged_models([run.info.experiment_id], "params.d = '1'", order_by=[{"field_name": "name"}])
print([(one.name, dict(one.tags)) for one in found])
client.log_outputs(run.info.run_id, [mlflow.entities.LoggedModelOutput(model.model_id, 3)])
print(client.get_run(run.info.run_id).outputs.model_outputs[0].step)
client.delete_logged_model(model.model_id)
try:
    client.log_artifact("0" * 32, "/etc/hostname")
except mlflow.exceptions.MlflowException as error:
    print(error.error_code)
"""
    lines = python(script, environment(server_factory(), tmp_path)).splitlines()
    assert lines == [
        "[('plots/loss.svg', 10), ('plots/other.png', 10)]",
        "READY {'d': '1', 'w': '9'}",
        "[('net', {'u': '3'})]",
        "3",
        "RESOURCE_DOES_NOT_EXIST",
    ]


def test_images_by_step_files_that_are_waited_for_and_tags_by_stage(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    pytest.importorskip("PIL", reason="pillow is not installed: images were left out")
    script = """
import numpy as np, stepstream as mlflow
client = mlflow.MlflowClient()
image = np.zeros((600, 300, 3), np.uint8)
with mlflow.start_run(experiment="f") as run:
    print(isinstance(run, mlflow.ActiveRun))
    mlflow.log_image(image, key="val/worst", step=7, timestamp=5)
    mlflow.flush_artifact_async_logging()
    listed = client.list_artifacts(run.info.run_id, "images")
    print(sorted((one.path.split("+")[:5], one.path.rpartition(".")[2]) for one in listed))
    model = mlflow.initialize_logged_model("net")
    print(mlflow.last_logged_model().model_id == model.model_id)
    data = mlflow.data.from_numpy(np.zeros(3), name="val")
    mlflow.log_metric("acc", 0.5, step=3, model_id=model.model_id, dataset=data)
    print([(one.key, one.value, one.step, one.dataset_name) for one in mlflow.last_logged_model().metrics])
    mlflow.log_inputs([{"name": "train", "digest": "1"}], ["training"], [None], models=[model])
    mlflow.register_model(f"runs:/{run.info.run_id}/images", "m")
client.log_image(run.info.run_id, image, key="val/worst", step=8, synchronous=True)
inputs = client.get_run(run.info.run_id).inputs
print(len(inputs.dataset_inputs), len(inputs.model_inputs), len(client.list_artifacts(run.info.run_id, "images")))
print(client.get_run(run.info.run_id).data.tags["mlflow.loggedImages"])
client.transition_model_version_stage("m", "1", "Staging")
mlflow.set_model_version_tag("m", key="seen", value=1, stage="Staging")
print(client.get_model_version("m", "1").tags)
client.delete_model_version_tag("m", key="seen", stage="Staging")
print(client.get_model_version("m", "1").tags)
for wrong in (dict(), dict(artifact_file="a.png", step=1)):
    try:
        client.log_image(run.info.run_id, image, **wrong)
    except TypeError as error:
        print(str(error).split(":")[0])
"""
    lines = python(script, environment(server_factory(), tmp_path)).splitlines()
    assert lines == [
        "True",
        "[(['images/val~worst', 'step', '7', 'timestamp', '5'], 'png'), "
        "(['images/val~worst', 'step', '7', 'timestamp', '5'], 'webp')]",
        "True",
        "[('acc', 0.5, 3, 'val')]",
        "1 1 4",
        "True",
        "{'seen': '1'}",
        "{}",
        "say where the image goes",
        "key, step and timestamp are of images by step",
    ]


def test_what_is_registered_copied_and_ordered_is_what_was_meant(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    script = """
import math, stepstream as mlflow
client = mlflow.MlflowClient()
mlflow.set_experiment("models")
def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except mlflow.MlflowException as error:
        return getattr(error, "error_code", type(error).__name__)
with mlflow.start_run() as run:
    run_id = run.info.run_id
    ids = {}
    for step, (name, train, test) in enumerate([("net", 0.9, 0.1), ("net", 0.2, 0.8), ("other", math.nan, math.nan)]):
        model = mlflow.initialize_logged_model(name, source_run_id=run_id)
        ids[model.model_id] = "abc"[step]
        client.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(model.model_id, 10 - step)])
        for time_ms, (dataset, value) in enumerate([("train", train), ("test", test)]):
            named = dict(dataset_name=dataset, dataset_digest="1", model_id=model.model_id, timestamp=time_ms + 1)
            client.log_metric(run_id, "val/acc", value, **named)
    version = mlflow.register_model(f"runs:/{run_id}/net", "m", tags={"t": 1})
    print(version.source == "models:/" + version.model_id, ids[version.model_id], version.run_id == run_id)
    mlflow.log_text("flavors: {}", "fresh/MLmodel")
    print(mlflow.register_model(f"runs:/{run_id}/fresh", "m").source.endswith(f"{run_id}/artifacts/fresh"))
    print(refused(mlflow.register_model, f"runs:/{run_id}/none", "none"))
client.update_model_version("m", "1", "words")
client.set_registered_model_alias("m", "best", "1")
client.transition_model_version_stage("m", "1", "Production")
for source in ("models:/m/1", "models:/m@best", "models:/m/production"):
    copied = client.copy_model_version(source, "copy")
    print(copied.version, copied.description, dict(copied.tags), copied.model_id == version.model_id)
print(client.copy_model_version("models:/m/latest", "copy").description)
print([refused(client.copy_model_version, source, "none") for source in ("s3://b/x", "models:/m/99", "models:/m/odd")])
print([one.name for one in client.search_registered_models()])
def ordered(**order):
    found = client.search_logged_models([run.info.experiment_id], order_by=[{"field_name": "metrics.val/acc", **order}])
    return "".join(ids[one.model_id] for one in found)
on = dict(dataset_name="train", dataset_digest="1")
print(ordered(), ordered(ascending=False), ordered(ascending=False, **on), ordered(ascending=True, **on))
"""
    lines = python(script, environment(server_factory(), tmp_path)).splitlines()
    assert lines == [
        "True a True",
        "True",
        "RESOURCE_DOES_NOT_EXIST",
        "1 words {'t': '1'} True",
        "2 words {'t': '1'} True",
        "3 words {'t': '1'} True",
        "",
        "['INVALID_PARAMETER_VALUE', 'RESOURCE_DOES_NOT_EXIST', 'INVALID_PARAMETER_VALUE']",
        "['copy', 'm']",
        "abc bac abc bac",
    ]


def test_what_is_refused_leaves_nothing_behind_and_a_deleted_experiment_takes_no_run(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    script = """
import stepstream as mlflow
from stepstream.entities import Metric, Param, RunTag
client = mlflow.MlflowClient()
def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except mlflow.MlflowException as error:
        return error.error_code
def stored():
    data = client.get_run(run_id).data
    return dict(data.params), {k: v for k, v in data.tags.items() if k != "mlflow.runName"}, dict(data.metrics)
experiment_id = client.create_experiment("e")
run_id = client.create_run(experiment_id).info.run_id
print(refused(client.log_batch, run_id, [Metric("bad\\n", 1.0, 1)], [Param("p", "1")], [RunTag("t", "1")]), stored())
print(refused(client.log_batch, run_id, params=[Param("a", "1"), Param("a", "2")]), stored())
many = [Param(f"p{number}", "1") for number in range(150)], [RunTag("t", "1"), RunTag("t", "2")]
client.log_batch(run_id, [Metric("m", 1.0, 1, step) for step in range(1200)], *many)
params, tags, metrics = stored()
print(len(params), tags, metrics, len(client.get_metric_history(run_id, "m")))
print(refused(mlflow.log_params, {"new": 1, "p3": 2, "p9": 1}, run_id=run_id), "new" in stored()[0])
mlflow.log_metrics({"x": 1.0, "y": 2.0}, step=4, run_id=run_id)
print({key: value for key, value in stored()[2].items() if key in "xy"})
client.delete_experiment(experiment_id)
print(refused(mlflow.set_experiment, experiment_id=experiment_id))
print(refused(mlflow.start_run, experiment_id=experiment_id), mlflow.active_run())
"""
    lines = python(script, environment(server_factory(), tmp_path)).splitlines()
    assert lines == [
        "INVALID_PARAMETER_VALUE ({}, {}, {})",
        "INVALID_PARAMETER_VALUE ({}, {}, {})",
        "150 {'t': '2'} {'m': 1.0} 1200",
        "INVALID_PARAMETER_VALUE False",
        "{'x': 1.0, 'y': 2.0}",
        "INVALID_PARAMETER_VALUE",
        "INVALID_PARAMETER_VALUE None",
    ]
