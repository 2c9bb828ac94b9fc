"""Endpoints of MLflow's clients that the other scripts leave out; run by a Python that has it: URL."""

import importlib.util
import json
import sys
import threading
import time
import urllib.parse
import urllib.request

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

url = sys.argv[1]
mlflow.set_tracking_uri(url)
client = MlflowClient()
three = mlflow.__version__.startswith("3.")
WRITERS, BATCHES, POINTS = 32, 4, 250


def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except MlflowException as error:
        found = error.error_code
    else:
        found = "nothing"
    assert found == code, (call, found)


# Experiments.
experiment_id = client.create_experiment("everything", tags={"team": "a"})
refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, "everything")
client.set_experiment_tag(experiment_id, "team", "b")
if three:
    client.set_experiment_tag(experiment_id, "passing", "x")
    client.delete_experiment_tag(experiment_id, "passing")
assert client.get_experiment(experiment_id).tags == {"team": "b"}
mlflow.set_experiment("everything")

# Datasets, pictures, tables.
frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
dataset = mlflow.data.from_pandas(frame, source="https://example.org/t.csv", name="rows", targets="y")
with mlflow.start_run() as run:
    run_id = run.info.run_id
    mlflow.log_input(dataset, context="training", tags={"split": "a"})
    mlflow.log_input(dataset, context="training")
    mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "black.png")
    mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), key="seen", step=2)
    mlflow.log_table({"question": ["a"], "answer": ["b"]}, "said.json")
    mlflow.log_table({"question": ["c"], "answer": ["d"]}, "said.json")
    mlflow.log_text("hi", "t.txt")
    mlflow.log_dict({"a": 1}, "d.yaml")
    if importlib.util.find_spec("matplotlib"):
        from matplotlib.figure import Figure

        mlflow.log_figure(Figure(), "figure.png")
        assert "figure.png" in [file.path for file in client.list_artifacts(run_id)]
    with mlflow.start_run(nested=True) as child, mlflow.start_run(nested=True) as grandchild:
        pass
stored = client.get_run(run_id)
(used,) = stored.inputs.dataset_inputs
assert (used.dataset.name, used.dataset.digest) == ("rows", dataset.digest)
assert json.loads(used.dataset.profile)["num_rows"] == 2
assert {tag.key: tag.value for tag in used.tags}["mlflow.data.context"] == "training"
assert client.search_runs([experiment_id], "datasets.name = 'rows'")[0].info.run_id == run_id
assert client.get_run(grandchild.info.run_id).data.tags["mlflow.parentRunId"] == child.info.run_id
assert client.get_parent_run(child.info.run_id).info.run_id == run_id
assert list(mlflow.load_table("said.json", run_ids=[run_id])["answer"]) == ["b", "d"]
assert {"black.png", "images", "t.txt", "d.yaml"} <= {file.path for file in client.list_artifacts(run_id)}

# One value at a time, and what is refused.
made = client.create_run(experiment_id, run_name="single", start_time=1_700_000_000_000)
single = made.info.run_id
client.log_metric(single, "loss", float("nan"), step=1)
client.log_metric(single, "top", float("inf"), step=-3)
client.log_param(single, "p", "1")
client.log_param(single, "p", "1")
refused("INVALID_PARAMETER_VALUE", client.log_param, single, "p", "2")
client.set_tag(single, "k", "v")
client.update_run(single, status="KILLED", name="renamed")
stored = client.get_run(single)
assert np.isnan(stored.data.metrics["loss"])
assert stored.data.metrics["top"] == sys.float_info.max
assert (stored.info.status, stored.info.run_name) == ("KILLED", "renamed")
assert stored.info.start_time == 1_700_000_000_000
refused("RESOURCE_DOES_NOT_EXIST", client.get_run, "0" * 32)
refused("RESOURCE_DOES_NOT_EXIST", client.delete_tag, single, "none")

# Batches that are on their way while the training goes on.
with mlflow.start_run() as late:
    for step in range(200):
        mlflow.log_metric("later", step, step=step, synchronous=False)
    mlflow.log_params({"a": 1}, synchronous=False).wait()
    mlflow.flush_async_logging()
assert len(client.get_metric_history(late.info.run_id, "later")) == 200
assert client.get_run(late.info.run_id).data.params == {"a": "1"}

# Many writers of one run.
shared = client.create_run(experiment_id).info.run_id
failures = []


def write(writer):
    own = MlflowClient(url)
    try:
        for batch in range(BATCHES):
            steps = range(batch * POINTS, (batch + 1) * POINTS)
            own.log_batch(
                shared,
                metrics=[Metric(f"m{writer % 8}", writer, 1000 + writer, step) for step in steps],
                params=[Param("same", "1"), Param(f"w{writer}b{batch}", "x")],
                tags=[RunTag("last", str(writer))],
            )
    except MlflowException as error:
        failures.append(error)


threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures[:3]
for name in range(8):
    history = client.get_metric_history(shared, f"m{name}")
    wanted = {(writer, step) for writer in range(name, WRITERS, 8) for step in range(BATCHES * POINTS)}
    assert len(history) == len(wanted)
    assert {(int(point.value), point.step) for point in history} == wanted
assert len(client.get_run(shared).data.params) == 1 + WRITERS * BATCHES


# What only the web page of MLflow asks.
def asked(path, **said):
    with urllib.request.urlopen(f"{url}/ajax-api/2.0/mlflow/{path}?{urllib.parse.urlencode(said)}") as response:
        return json.loads(response.read())


sampled = asked("metrics/get-history-bulk-interval", run_ids=shared, metric_key="m0", max_results=50)["metrics"]
assert {0, BATCHES * POINTS - 1} <= {point["step"] for point in sampled}, sampled[:3]
assert len(asked("metrics/get-history-bulk", run_id=late.info.run_id, metric_key="later")["metrics"]) == 200
assert {file["path"] for file in asked("artifacts/list", run_id=run_id)["files"]} >= {"black.png", "t.txt"}

# The machine's own metrics.
if importlib.util.find_spec("psutil"):
    mlflow.set_system_metrics_sampling_interval(1)
    mlflow.set_system_metrics_samples_before_logging(1)
    with mlflow.start_run(log_system_metrics=True) as watched:
        time.sleep(2.5)
    assert "system/cpu_utilization_percentage" in client.get_run(watched.info.run_id).data.metrics

if three:
    model = mlflow.create_external_model(name="outside", model_type="agent", params={"a": "1"}, tags={"t": "1"})
    mlflow.log_model_params({"b": "2"}, model_id=model.model_id)
    client.set_logged_model_tags(model.model_id, {"u": "2"})
    client.delete_logged_model_tag(model.model_id, "t")
    stored = client.get_logged_model(model.model_id)
    assert stored.params == {"a": "1", "b": "2"}
    assert (stored.tags["u"], "t" in stored.tags) == ("2", False)
    pending = client.create_logged_model(experiment_id, name="slow", source_run_id=run_id)
    assert str(client.finalize_logged_model(pending.model_id, "FAILED").status) == "FAILED"
    found = client.search_logged_models([experiment_id], filter_string="name = 'slow'")
    assert [model.model_id for model in found] == [pending.model_id]
    client.delete_logged_model(pending.model_id)
    refused("RESOURCE_DOES_NOT_EXIST", client.get_logged_model, pending.model_id)

    # Traces are not spoken; whoever sends them keeps the run.
    @mlflow.trace
    def double(number):
        return 2 * number

    with mlflow.start_run() as traced:
        assert double(4) == 8
        mlflow.log_metric("after", 1)
    assert client.get_run(traced.info.run_id).data.metrics == {"after": 1}
    refused("NOT_IMPLEMENTED", mlflow.genai.create_dataset, name="none")
print("all is well with", mlflow.__version__)
