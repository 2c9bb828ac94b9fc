"""Where a script's runs and questions go: what its arguments, its environment and the server say of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.test_sdk import environment, python
from tests.servers import ServerProcess, free_port


def test_a_run_that_goes_on_says_the_servers_experiment_and_name(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    script = """
import stepstream as mlflow
client = mlflow.MlflowClient()
made = client.create_run(client.create_experiment("there"), run_name="by client").info
mlflow.set_experiment("here")
with mlflow.start_run(run_id=made.run_id) as run:
    said = run.info
    print(said.run_name, said.experiment_id == made.experiment_id, said.artifact_uri == made.artifact_uri)
    print(mlflow.get_artifact_uri("x") == made.artifact_uri + "/x")
with mlflow.start_run(run_id="f" * 32, run_name="new") as run:
    print(run.info.run_name)
    said = run.info.experiment_id, run.info.artifact_uri
stored = mlflow.get_run(run.run_id).info
print(said == (stored.experiment_id, stored.artifact_uri), mlflow.get_experiment(said[0]).name)
mlflow.set_tracking_uri("http://127.0.0.1:9")
run = mlflow.start_run(run_id=made.run_id, run_name="away", finish_timeout=0)
print(run.info.run_name)
try:
    run.info.experiment_id
except mlflow.MlflowException as error:
    print(error.error_code)
"""
    assert python(script, environment(server_factory(), tmp_path)).splitlines() == [
        "by client True True",
        "True",
        "new",
        "True here",
        "away",
        "TEMPORARILY_UNAVAILABLE",
    ]


def test_the_environments_id_of_an_experiment_counts_where_no_name_is_said(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    script = """
import os
import stepstream as mlflow
client = mlflow.MlflowClient()
made = client.create_experiment("by id")
os.environ["MLFLOW_EXPERIMENT_ID"] = made
with mlflow.start_run() as run:
    print(run.experiment, run.info.experiment_id == made)
print([one.info.run_id == run.run_id for one in mlflow.search_runs(output_format="list")])
with mlflow.start_run(experiment="named") as run:
    print(run.experiment)
os.environ["MLFLOW_EXPERIMENT_NAME"] = "also named"
print(mlflow.start_run().experiment)
mlflow.end_run()
del os.environ["MLFLOW_EXPERIMENT_NAME"]
for wrong in ("999999", "abc"):
    os.environ["MLFLOW_EXPERIMENT_ID"] = wrong
    try:
        mlflow.start_run()
    except mlflow.MlflowException as error:
        print(error.error_code, "MLFLOW_EXPERIMENT_ID is " + repr(wrong) in str(error), mlflow.active_run())
mlflow.set_experiment("set")
print(mlflow.start_run().experiment)
"""
    assert python(script, environment(server_factory(), tmp_path)).splitlines() == [
        "by id True",
        "[True]",
        "named",
        "also named",
        "RESOURCE_DOES_NOT_EXIST True None",
        "INVALID_PARAMETER_VALUE True None",
        "set",
    ]


def test_a_later_run_does_not_need_the_server_for_the_name_of_the_environments_id(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = server_factory()
    script = """
import os, sys
import stepstream as mlflow
os.environ["MLFLOW_EXPERIMENT_ID"] = mlflow.MlflowClient().create_experiment("by id")
mlflow.start_run(finish_timeout=0).finish()
print("ready", flush=True)
sys.stdin.readline()
run = mlflow.start_run(finish_timeout=0)
print(run.experiment)
"""
    command = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(server, tmp_path), text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        server.kill_everything()
        assert process.communicate("\n", timeout=60)[0] == "by id\n"


def test_a_job_starts_though_nobody_says_which_experiment_the_environments_id_is(tmp_path: Path) -> None:
    script = """
import stepstream as mlflow
run = mlflow.start_run(finish_timeout=0)
run.log({"loss": 1.0}, 0)
print(run.experiment, run.finish().points_left)
"""
    said = os.environ | {
        "STEPSTREAM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "STEPSTREAM_SPOOL_DIR": str(tmp_path),
        "MLFLOW_EXPERIMENT_ID": "7",
    }
    done = subprocess.run([sys.executable, "-c", script], env=said, capture_output=True, text=True, timeout=60)
    assert done.stdout == "Default 1\n", done.stderr
    assert "MLFLOW_EXPERIMENT_ID is '7'" in done.stderr
    assert "belong to the experiment 'Default' instead" in done.stderr
