"""`stepstream import mlflow`: everything arrives, is found as it was, survives a kill half-way, and comes once."""

import importlib.metadata
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepstream_schema import paths
from tests.e2e.proxy import in_thread
from tests.servers import ServerProcess
from tests.warm import WarmPython

RUNS, METRICS, STEPS = 24, 5, 400

# A database as MLflow leaves it: histories are inserted, for by its protocol they would take minutes.
MAKE = """
import sys, time
from pathlib import Path
import mlflow, sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.http_dataset_source import HTTPDatasetSource
uri, folder, runs, metrics, steps = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
mlflow.set_tracking_uri(uri)
client = MlflowClient(uri)
experiment = client.create_experiment("vision", artifact_location=f"file://{folder}/vision", tags={"team": "a"})
client.delete_experiment(client.create_experiment("gone", artifact_location=f"file://{folder}/gone"))
from mlflow.tracking._tracking_service.utils import _get_store
engine = _get_store(uri).engine
columns = "key, value, timestamp, step, run_uuid, is_nan"
insert = sqlalchemy.text(f"INSERT INTO metrics ({columns}) VALUES (:k, :v, :t, :s, :r, :n)")
for number in range(runs):
    rows = []
    tags = {"kind": "ab"[number % 2]}
    run = client.create_run(experiment, start_time=1000 + number, run_name=f"run {number}", tags=tags)
    run_id = run.info.run_id
    last = [Metric(f"m{metric}", number / 7, 50 + steps, steps) for metric in range(metrics)]
    client.log_batch(run_id, metrics=last, params=[Param("lr", str(number))])
    for metric in range(metrics):
        for step in range(steps):
            rows.append((f"m{metric}", (step * number) % 13 / 3, 50 + step, step, run_id, step % 50 == 49))
    with engine.begin() as connection:
        connection.execute(insert, [dict(zip("kvtsrn", row)) for row in rows])
    if number == 0:
        Path(folder, "net.txt").write_text("weights")
        client.log_artifact(run_id, f"{folder}/net.txt", "model/deep")
        dataset = MetaDataset(HTTPDatasetSource("http://x/iris.csv"), name="iris", digest="d1")
        with mlflow.start_run(run_id):
            mlflow.log_input(dataset, context="training")
        client.create_registered_model("net", tags={"a": "b"}, description="words")
        for _ in range(3):
            client.create_model_version("net", f"{run.info.artifact_uri}/model", run_id)
        client.delete_model_version("net", "2")
        client.set_registered_model_alias("net", "best", "3")
        client.set_terminated(run_id, "FINISHED", 7000)
    elif number == 1:
        client.delete_run(run_id)
    else:
        client.set_terminated(run_id, "FAILED", 8000)
"""


# The same command, of a source whose store has lost a file, or is away for a moment.
LOST = """
import sys
from stepstream import cli
from stepstream.importing import mlflow_source
def lost(run_id, path, destination):
    raise ConnectionError("the bucket is gone")
made = mlflow_source.MlflowSource.__init__
def make(self, *arguments, **more):
    made(self, *arguments, **more)
    self._client.download_artifacts = lost
mlflow_source.MlflowSource.__init__ = make
sys.exit(cli.main(sys.argv[1:]))
"""


Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def python(python_of_mlflow: Callable[[str], WarmPython]) -> Python:
    def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        environ = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"} | more
        return python_of_mlflow(sys.executable).run(*arguments, environ=environ)

    return run


@pytest.fixture(scope="module")
def database(python: Python, tmp_path_factory: pytest.TempPathFactory) -> str:
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("MLflow is not installed (the extra `import`): moving in from it was left out")
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    made = python("-c", MAKE, uri, str(folder), *map(str, (RUNS, METRICS, STEPS)))
    assert made.returncode == 0, made.stderr
    return uri


def asked(server: ServerProcess, database: str, *options: str) -> list[str]:
    return ["import", "mlflow", "--from", database, "--tracking-uri", server.url, *options]


@pytest.fixture
def run(python: Python) -> Callable[..., str]:
    def run(server: ServerProcess, database: str, *options: str) -> str:
        done = python("-m", "stepstream.cli", *asked(server, database, *options))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def call(server: ServerProcess, path: str, **body: Any) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def ask(server: ServerProcess, path: str) -> Any:
    with urllib.request.urlopen(server.url + path) as response:
        return json.loads(response.read())


def runs_of(server: ServerProcess) -> dict[str, Any]:
    found = ask(server, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=vision")["experiment"]
    said = {"experiment_ids": [found["experiment_id"]], "run_view_type": "ALL", "max_results": 1000}
    return {one["info"]["run_name"]: one for one in call(server, "runs/search", **said)["runs"]}


def begun(server: ServerProcess) -> int:
    try:
        return len(runs_of(server))
    except (urllib.error.HTTPError, KeyError):
        return 0  # the experiment is not there yet


def check(server: ServerProcess) -> None:
    runs = runs_of(server)
    assert len(runs) == RUNS
    points = 0
    for name, one in runs.items():
        info, number = one["info"], int(name.split()[1])
        assert info["start_time"] == 1000 + number
        assert info["lifecycle_stage"] == ("deleted" if number == 1 else "active")
        assert {param["key"]: param["value"] for param in one["data"]["params"]} == {"lr": str(number)}
        for metric in range(METRICS):
            query = f"run_id={info['run_id']}&metric_key=m{metric}"
            history = ask(server, f"/api/2.0/mlflow/metrics/get-history?{query}")["metrics"]
            points += len(history)
            if metric == number % METRICS:
                said = [(point["step"], point["timestamp"], float(point["value"])) for point in history]
                for step, time_ms, value in said[:-1]:
                    expected = math.nan if step % 50 == 49 else (step * number) % 13 / 3
                    assert value == expected or (math.isnan(value) and math.isnan(expected))
                    assert time_ms == 50 + step
                assert said[-1] == (STEPS, 50 + STEPS, number / 7)
    assert points == RUNS * METRICS * (STEPS + 1)
    first = runs["run 0"]
    assert (first["info"]["status"], first["info"]["end_time"]) == ("FINISHED", 7000)
    assert first["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "iris"
    assert first["inputs"]["dataset_inputs"][0]["tags"] == [{"key": "mlflow.data.context", "value": "training"}]
    gone = ask(server, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=gone")["experiment"]
    assert gone["lifecycle_stage"] == "deleted"
    model = ask(server, "/api/2.0/mlflow/registered-models/get?name=net")["registered_model"]
    assert (model["description"], model["aliases"]) == ("words", [{"alias": "best", "version": "3"}])
    versions = ask(server, "/api/2.0/mlflow/model-versions/search?filter=name%3D'net'")["model_versions"]
    assert sorted(one["version"] for one in versions) == ["1", "3"]
    assert {one["source"] for one in versions} == {f"runs:/{first['info']['run_id']}/model"}


def test_everything_arrives_and_a_second_time_changes_nothing(
    run: Callable[..., str], server_factory: Callable[..., ServerProcess], database: str
) -> None:
    server = server_factory()
    said = run(server, database)
    assert f"{RUNS} runs" in said
    assert "1 files" in said
    check(server)
    run_id = runs_of(server)["run 0"]["info"]["run_id"]
    listed = ask(server, f"/v1/runs/{run_id}/artifacts?recursive=1")["files"]
    assert [(file["path"], file["size"]) for file in listed] == [("model/deep/net.txt", 7)]
    again = run(server, database)
    assert again.startswith("0 runs")
    assert f"{RUNS} runs were here already" in again
    check(server)


def test_an_import_that_was_killed_goes_on(
    run: Callable[..., str], server_factory: Callable[..., ServerProcess], database: str
) -> None:
    server = server_factory()
    with in_thread(server.port) as proxy:
        # It cannot be over before it is killed, however late this test looks: each run begins with a frame.
        proxy.hold, proxy.passes = f"POST {paths.FRAMES} ".encode(), RUNS // 2
        options = ["--artifacts", "reference", "--tracking-uri", proxy.url]
        process = subprocess.Popen([sys.executable, "-m", "stepstream.cli", *asked(server, database, *options)])
        deadline = time.monotonic() + 120
        while begun(server) < RUNS // 3:
            assert process.poll() is None, "it has ended by itself"
            assert time.monotonic() < deadline, "it has not come so far in time"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert RUNS // 3 <= len(runs_of(server)) < RUNS, "it was over before it was killed"
    said = run(server, database, "--artifacts", "reference")
    assert not said.startswith(f"{RUNS} runs"), "nothing was skipped"
    check(server)
    tags = {tag["key"]: tag["value"] for tag in runs_of(server)["run 0"]["data"]["tags"]}
    assert tags["stepstream.imported.artifact_uri"].startswith("file://")


def test_one_experiment_can_be_taken_alone(
    run: Callable[..., str], server_factory: Callable[..., ServerProcess], database: str
) -> None:
    server = server_factory()
    assert run(server, database, "--experiment", "gone").startswith("0 runs of 1 experiments")


def test_what_is_no_source_is_said(python: Python, server_factory: Callable[..., ServerProcess], database: str) -> None:
    nowhere = asked(server_factory(), "http://127.0.0.1:9")
    done = python("-m", "stepstream.cli", *nowhere, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "127.0.0.1" in done.stderr


LOGGED = """
import sys
from pathlib import Path
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput
uri, folder = sys.argv[1:]
client = MlflowClient(uri)
experiment = client.create_experiment("three", artifact_location=f"file://{folder}/three")
run = client.create_run(experiment, run_name="maker").info.run_id
model = client.create_logged_model(experiment, "net", run, tags={"k": "v"}, params={"depth": "3"}, model_type="cnn")
Path(folder, "MLmodel").write_text("flavors: {}")
Path(folder, "weights.bin").write_bytes(b"x" * 100_000)
client.log_model_artifact(model.model_id, f"{folder}/MLmodel")
client.log_model_artifact(model.model_id, f"{folder}/weights.bin", "data")
of = {"model_id": model.model_id, "dataset_name": "iris", "dataset_digest": "d"}
client.log_metric(run, "accuracy", 0.9, timestamp=5, step=2, **of)
client.finalize_logged_model(model.model_id, "READY")
client.log_outputs(run, [LoggedModelOutput(model.model_id, 2)])
reader = client.create_run(experiment, run_name="reader").info.run_id
client.log_inputs(reader, models=[LoggedModelInput(model.model_id)])
client.create_registered_model("net3")
client.create_model_version("net3", model.artifact_location, run, model_id=model.model_id)
print(model.model_id)
"""


def test_logged_models_keep_their_ids_metrics_files_and_versions(
    python: Python, run: Callable[..., str], server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    if importlib.util.find_spec("mlflow") is None or not importlib.metadata.version("mlflow").startswith("3."):
        pytest.skip("MLflow 3 (the extra `frameworks`) is not installed: logged models were left out")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    made = python("-c", LOGGED, uri, str(tmp_path))
    assert made.returncode == 0, made.stderr
    model_id, server = made.stdout.split()[-1], server_factory()
    said = run(server, uri)
    assert "2 runs" in said
    assert "2 files" in said
    assert "1 logged and 1 registered" in said
    for _ in range(2):
        model = ask(server, f"/v1/logged-models/{model_id}")
        assert (model["name"], model["model_type"], model["status"]) == ("net", "cnn", "LOGGED_MODEL_READY")
        assert model["params"] == {"depth": "3"}
        assert model["tags"]["k"] == "v"
        (metric,) = model["metrics"]
        assert (metric["key"], metric["value"], metric["step"], metric["time_ms"]) == ("accuracy", 0.9, 2, 5)
        assert (metric["dataset_name"], metric["dataset_digest"]) == ("iris", "d")
        lineage = ask(server, "/v1/registry/models/net3/versions/1/lineage")
        assert (lineage["model"]["model_id"], lineage["run"]["name"]) == (model_id, "maker")
        assert [file["path"] for file in lineage["environment"]] == ["MLmodel"]
        uses = {
            one["name"]: one["models"] for one in call_v1(server, "runs/search", experiment_names=["three"])["runs"]
        }
        assert uses == {
            "maker": [{"direction": "output", "model_id": model_id, "step": 2}],
            "reader": [{"direction": "input", "model_id": model_id, "step": 0}],
        }
        # Again: nothing is taken twice.
        assert "0 logged and" in run(server, uri)
    place = f"/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories?artifact_directory_path=data"
    listed = [(file["path"], file["file_size"]) for file in ask(server, place)["files"]]
    assert listed == [("data/weights.bin", 100_000)]


def call_v1(server: ServerProcess, path: str, **body: Any) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/v1/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def test_a_file_that_cannot_be_read_is_said_and_asked_for_again(
    python: Python, run: Callable[..., str], server_factory: Callable[..., ServerProcess], database: str
) -> None:
    server = server_factory()
    done = python("-c", LOST, *asked(server, database))
    assert done.returncode == 1
    assert "artifact model/deep/net.txt of run" in done.stderr
    assert "the bucket is gone" in done.stderr
    assert f"{RUNS} runs of" in done.stdout
    assert run(server, database).startswith("1 runs of")
    check(server)
