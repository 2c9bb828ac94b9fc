"""What the unmodified `mlflow` command line does; run by a Python that has it: URL, scratch directory."""

import csv
import json
import os
import sys
from pathlib import Path

import mlflow
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.cli import cli

url, scratch = sys.argv[1], Path(sys.argv[2])
os.environ["MLFLOW_TRACKING_URI"] = url
client = MlflowClient(url)
three = mlflow.__version__.startswith("3.")


def said(*arguments):
    # In this process: a new one spends seconds on importing MLflow.
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.output


assert "Created experiment" in said("experiments", "create", "-n", "by hand")
experiment_id = client.get_experiment_by_name("by hand").experiment_id
listed = said("experiments", "search", "--view", "all")
assert "by hand" in listed
assert "Default" in listed
said("experiments", "rename", "-x", experiment_id, "--new-name", "renamed")
assert client.get_experiment(experiment_id).name == "renamed"

run = client.create_run(experiment_id, run_name="told")
run_id = run.info.run_id
client.log_param(run_id, "lr", "0.5")
client.log_metric(run_id, "loss", 0.25)
assert "told" in said("runs", "list", "--experiment-id", experiment_id)
described = json.loads(said("runs", "describe", "--run-id", run_id))
assert described["data"]["params"] == {"lr": "0.5"}, described
assert described["data"]["metrics"] == {"loss": 0.25}, described
table = scratch / "runs.csv"
said("experiments", "csv", "-x", experiment_id, "-o", table)
with table.open() as opened:
    rows = list(csv.DictReader(opened))
assert [(row["run_id"], row["params.lr"], float(row["metrics.loss"])) for row in rows] == [(run_id, "0.5", 0.25)]

one, tree = scratch / "one.txt", scratch / "tree"
one.write_text("one")
(tree / "deep").mkdir(parents=True)
(tree / "deep" / "two.txt").write_text("two")
said("artifacts", "log-artifact", "--local-file", one, "--run-id", run_id, "--artifact-path", "files")
said("artifacts", "log-artifacts", "--local-dir", tree, "--run-id", run_id)
top = json.loads(said("artifacts", "list", "--run-id", run_id))
assert sorted(file["path"] for file in top) == ["deep", "files"], top
inside = json.loads(said("artifacts", "list", "--run-id", run_id, "--artifact-path", "files"))
assert [(file["path"], int(file["file_size"])) for file in inside] == [("files/one.txt", 3)], inside
said("artifacts", "download", "--run-id", run_id, "--artifact-path", "deep", "--dst-path", scratch / "down")
assert (scratch / "down" / "deep" / "two.txt").read_text() == "two"
said("artifacts", "download", "--artifact-uri", f"runs:/{run_id}/files/one.txt", "--dst-path", scratch / "down")
assert [path.read_text() for path in (scratch / "down").rglob("one.txt")] == ["one"]

said("runs", "delete", "--run-id", run_id)
assert client.get_run(run_id).info.lifecycle_stage == "deleted"
assert "told" in said("runs", "list", "--experiment-id", experiment_id, "--view", "deleted_only")
said("runs", "restore", "--run-id", run_id)
assert client.get_run(run_id).info.lifecycle_stage == "active"
said("experiments", "delete", "-x", experiment_id)
assert client.get_experiment(experiment_id).lifecycle_stage == "deleted"
assert "renamed" not in said("experiments", "search")
said("experiments", "restore", "-x", experiment_id)
assert client.get_experiment(experiment_id).lifecycle_stage == "active"
assert CliRunner().invoke(cli, ["runs", "describe", "--run-id", "0" * 32]).exit_code != 0

if three:
    assert "renamed" in said("experiments", "get", "-x", experiment_id)
    made = said("runs", "create", "--experiment-id", experiment_id, "--run-name", "at once", "--status", "FAILED")
    found = client.search_runs([experiment_id], "attributes.run_name = 'at once'")
    assert [run.info.status for run in found] == ["FAILED"], made
print("all is well with", mlflow.__version__)
