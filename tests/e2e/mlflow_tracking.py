"""What the unmodified MLflow client does with runs and metrics; run by a Python that has it: URL."""

import sys

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from sklearn.linear_model import LogisticRegression

mlflow.set_tracking_uri(sys.argv[1])
experiment = mlflow.set_experiment("tracking")
client = MlflowClient()

for rank in (4, 8, 16):
    with mlflow.start_run(run_name=f"rank {rank}") as parent:
        mlflow.log_params({"lora_rank": rank, "lr": 1e-3})
        mlflow.set_tags({"team": "a", "stage": "test"})
        for step in range(10):
            mlflow.log_metric("val_loss", 1 / (rank + step), step=step)
        mlflow.log_metrics({"accuracy": rank / 16, "f1": 0.5}, step=3)
        with mlflow.start_run(run_name=f"child of {rank}", nested=True) as child:
            mlflow.log_metric("val_loss", 9.0)
        assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id

table = mlflow.search_runs(
    experiment_names=["tracking"],
    filter_string="metrics.val_loss < 0.5 AND params.lora_rank = '16'",
    order_by=["metrics.val_loss ASC"],
)
assert len(table) == 1, table
assert table.loc[0, "params.lora_rank"] == "16"
assert table.loc[0, "metrics.val_loss"] == 1 / 25
assert table.loc[0, "status"] == "FINISHED"

runs = client.search_runs([experiment.experiment_id], "tags.team = 'a'", order_by=["metrics.accuracy DESC"])
assert [run.info.run_name for run in runs] == ["rank 16", "rank 8", "rank 4"]
history = client.get_metric_history(runs[0].info.run_id, "val_loss")
assert [(point.step, point.value) for point in history] == [(step, 1 / (16 + step)) for step in range(10)]
page = client.search_runs([experiment.experiment_id], max_results=4)
assert len(page) == 4
assert len(client.search_runs([experiment.experiment_id], max_results=4, page_token=page.token)) == 2

batch = client.create_run(experiment.experiment_id, tags={"mlflow.runName": "by hand"})
run_id = batch.info.run_id
client.log_batch(
    run_id,
    metrics=[Metric(f"m{number % 7}", number, 1000 + number, number) for number in range(2500)],
    params=[Param(f"p{number}", str(number)) for number in range(150)],
    tags=[RunTag(f"t{number}", "x") for number in range(120)],
)
client.log_batch(run_id, metrics=[Metric("m0", 0, 1000, 0)])
stored = client.get_run(run_id)
assert len(stored.data.params) == 150
assert stored.data.metrics["m0"] == 2499
assert len(client.get_metric_history(run_id, "m0")) == 358
client.set_terminated(run_id, "FAILED")
assert client.get_run(run_id).info.status == "FAILED"
client.delete_run(run_id)
assert client.get_run(run_id).info.lifecycle_stage == "deleted"
client.restore_run(run_id)
client.delete_tag(run_id, "t0")
assert "t0" not in client.get_run(run_id).data.tags

names = [found.name for found in mlflow.search_experiments(filter_string="name LIKE 'track%'")]
assert names == ["tracking"], names

mlflow.sklearn.autolog()
features = np.random.default_rng(1).normal(size=(60, 3))
with mlflow.start_run() as auto:
    LogisticRegression(C=0.3).fit(features, features[:, 0] > 0)
logged = client.get_run(auto.info.run_id)
assert logged.data.params["C"] == "0.3"
assert logged.data.metrics["training_accuracy_score"] > 0.8, logged.data.metrics
dataset = mlflow.data.from_numpy(features, source="https://example.org/x")
with mlflow.start_run() as read:
    mlflow.log_input(dataset, context="training")
inputs = client.get_run(read.info.run_id).inputs.dataset_inputs
assert inputs[0].dataset.digest == dataset.digest
print("all is well with", mlflow.__version__)
