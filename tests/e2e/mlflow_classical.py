"""A classical MLflow script, written once: `mlflow_classical.py mlflow|stepstream URI` prints what it found as JSON.

Ids, times and what MLflow tells of the machine are left out; all else must be the same by either package.
"""

import json
import math
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

mlflow: Any = import_module(sys.argv[1])
FOUND: dict[str, Any] = {}
OWN_TAGS = ("mlflow.user", "mlflow.source", "mlflow.modelVersions", "mlflow.log-model")


def tags(said: Any) -> dict[str, str]:
    return {key: value for key, value in dict(said).items() if not key.startswith(OWN_TAGS)}


def plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def logging(name: str) -> str:
    with mlflow.start_run(run_name="parent", description="words", tags={"team": "a"}) as run:
        assert mlflow.active_run().info.run_id == run.info.run_id
        FOUND["param"] = mlflow.log_param("lr", 0.1)
        mlflow.log_params({"layers": 3, "name": None})
        for step in range(4):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metric("odd", float("nan"))
        mlflow.log_metric("late", 7, timestamp=1234, step=2)
        mlflow.log_metrics({"a": 1, "b": 2.5}, step=3)
        mlflow.set_tag("kind", "test")
        mlflow.set_tags({"gone": "x", "number": 5})
        mlflow.delete_tag("gone")
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": [1, 2]}, "config.json")
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "sub").mkdir()
            Path(directory, "one.txt").write_text("1")
            Path(directory, "sub", "two.txt").write_text("22")
            mlflow.log_artifact(f"{directory}/one.txt", "files")
            mlflow.log_artifacts(directory, "tree")
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.log_metric("loss", 9.0)
        assert mlflow.active_run().info.run_id == run.info.run_id
        FOUND["uri"] = mlflow.get_artifact_uri("x").endswith(f"{run.info.run_id}/artifacts/x")
    assert mlflow.active_run() is None
    assert mlflow.last_active_run().info.run_id in (run.info.run_id, child.info.run_id)
    FOUND["parent"] = mlflow.get_parent_run(child.info.run_id).info.run_name
    return str(run.info.run_id)


def failing() -> None:
    try:
        with mlflow.start_run(run_name="failing"):
            mlflow.log_metric("loss", 5.0)
            raise ValueError("the training broke")
    except ValueError:
        pass
    mlflow.start_run(run_name="killed")
    mlflow.end_run("KILLED")
    # Logged to without a run: one is started.
    mlflow.log_metric("loss", 4.0)
    FOUND["begun"] = mlflow.active_run() is not None
    mlflow.end_run()


def resuming(run_id: str) -> None:
    with mlflow.start_run(run_id=run_id):
        mlflow.log_metric("loss", 0.01, step=9)


def threads() -> None:
    def work(number: int) -> None:
        with mlflow.start_run(run_name=f"thread {number}"):
            mlflow.log_metric("loss", 100.0 + number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def reading(run_id: str) -> None:
    run = mlflow.get_run(run_id)
    FOUND["run"] = {
        "name": run.info.run_name,
        "status": run.info.status,
        "stage": run.info.lifecycle_stage,
        "metrics": {key: plain(value) for key, value in sorted(run.data.metrics.items())},
        "params": dict(sorted(run.data.params.items())),
        "tags": dict(sorted(tags(run.data.tags).items())),
    }
    table = mlflow.search_runs(filter_string="metrics.loss > 0", order_by=["metrics.loss ASC", "attributes.start_time"])
    FOUND["columns"] = sorted(column for column in table.columns if not column.startswith("tags.mlflow.source"))
    FOUND["order"] = [plain(value) for value in table["metrics.loss"]]
    FOUND["statuses"] = sorted(table["status"])
    listed = mlflow.search_runs(filter_string="tags.kind = 'test' AND params.lr = '0.1'", output_format="list")
    FOUND["listed"] = [one.info.run_name for one in listed]
    names = mlflow.search_runs(experiment_names=["classical", "none"], order_by=["attributes.run_name ASC"])
    FOUND["names"] = [name for name in names["tags.mlflow.runName"] if name and " " not in name[:6] and "-" not in name]
    FOUND["text"] = mlflow.artifacts.load_text(f"runs:/{run_id}/notes/hello.txt")
    FOUND["dict"] = mlflow.artifacts.load_dict(f"runs:/{run_id}/config.json")
    with tempfile.TemporaryDirectory() as directory:
        local = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="tree", dst_path=directory))
        FOUND["tree"] = sorted(str(path.relative_to(local)) for path in local.rglob("*") if path.is_file())


def client(run_id: str) -> None:
    calls = mlflow.tracking.MlflowClient()
    history = calls.get_metric_history(run_id, "loss")
    FOUND["history"] = sorted((one.step, plain(one.value)) for one in history)
    FOUND["late"] = [(one.step, one.timestamp, one.value) for one in calls.get_metric_history(run_id, "late")]
    FOUND["files"] = [(one.path, one.is_dir, one.file_size) for one in calls.list_artifacts(run_id)]
    made = calls.create_experiment("by client", tags={"k": "v"})
    calls.set_experiment_tag(made, "more", "w")
    calls.rename_experiment(made, "renamed")
    experiment = calls.get_experiment(made)
    FOUND["experiment"] = (experiment.name, dict(experiment.tags), experiment.lifecycle_stage)
    run = calls.create_run(made, run_name="by client", tags={"t": "1"}, start_time=5)
    entities = mlflow.entities
    calls.log_batch(
        run.info.run_id,
        metrics=[entities.Metric("m", 1.5, 10, 1), entities.Metric("m", 2.5, 20, 2)],
        params=[entities.Param("p", "1")],
        tags=[entities.RunTag("u", "2")],
    )
    calls.log_metric(run.info.run_id, "n", 3, timestamp=30, step=1)
    calls.log_param(run.info.run_id, "q", "x")
    calls.set_tag(run.info.run_id, "v", "3")
    calls.delete_tag(run.info.run_id, "v")
    calls.update_run(run.info.run_id, name="other")
    calls.log_text(run.info.run_id, "body", "deep/a.txt")
    calls.set_terminated(run.info.run_id, "FAILED", end_time=99)
    found = calls.get_run(run.info.run_id)
    FOUND["by client"] = {
        "info": (found.info.run_name, found.info.status, found.info.start_time, found.info.end_time),
        "data": (dict(found.data.metrics), dict(found.data.params), tags(found.data.tags)),
    }
    FOUND["pages"] = paged(calls, made)
    calls.delete_run(run.info.run_id)
    FOUND["deleted"] = len(calls.search_runs([made], run_view_type=entities.ViewType.DELETED_ONLY))
    calls.restore_run(run.info.run_id)
    calls.delete_experiment(made)
    FOUND["gone"] = [one.name for one in mlflow.search_experiments(view_type=entities.ViewType.DELETED_ONLY)]
    calls.restore_experiment(made)
    FOUND["experiments"] = sorted(one.name for one in mlflow.search_experiments(filter_string="name != 'Default'"))


def paged(calls: Any, experiment_id: str) -> list[int]:
    for _ in range(2):
        calls.create_run(experiment_id)
    first = calls.search_runs([experiment_id], max_results=2)
    second = calls.search_runs([experiment_id], max_results=2, page_token=first.token)
    return [len(first), len(second), int(bool(second.token))]


def registered(calls: Any, run_id: str, said: dict[str, str] | None) -> Any:
    if not mlflow.__version__.startswith("3"):
        return mlflow.register_model(f"runs:/{run_id}/tree", "net", tags=said)
    # MLflow 3 registers a run's directory only when it holds a model that its own flavors have written.
    if said:
        calls.create_registered_model("net")
    return calls.create_model_version("net", f"{calls.get_run(run_id).info.artifact_uri}/tree", run_id, tags=said)


def registry(run_id: str) -> None:
    calls = mlflow.MlflowClient()
    version = registered(calls, run_id, {"a": "1"})
    FOUND["version"] = (version.name, int(version.version), version.run_id == run_id, dict(version.tags))
    second = registered(calls, run_id, None)
    calls.set_registered_model_alias("net", "best", second.version)
    calls.set_registered_model_tag("net", "t", "u")
    calls.update_registered_model("net", "words")
    calls.set_model_version_tag("net", "1", "x", "y")
    calls.update_model_version("net", "1", "old")
    calls.transition_model_version_stage("net", "2", "Production")
    calls.transition_model_version_stage("net", "1", "production", archive_existing_versions=True)
    model = calls.get_registered_model("net")
    FOUND["model"] = (model.description, dict(model.tags), {k: int(v) for k, v in dict(model.aliases).items()})
    FOUND["best"] = int(calls.get_model_version_by_alias("net", "best").version)
    FOUND["stages"] = sorted((int(one.version), one.current_stage) for one in calls.search_model_versions("name='net'"))
    FOUND["latest"] = [int(one.version) for one in calls.get_latest_versions("net", ["Production"])]
    copied = calls.copy_model_version("models:/net@best", "copy")
    FOUND["copied"] = (copied.name, int(copied.version))
    calls.rename_registered_model("copy", "kept")
    calls.delete_registered_model_alias("net", "best")
    calls.delete_model_version("net", "2")
    FOUND["versions"] = [int(one.version) for one in mlflow.search_model_versions(filter_string="name = 'net'")]
    FOUND["models"] = [one.name for one in mlflow.search_registered_models(order_by=["name ASC"])]
    calls.delete_registered_model("kept")


def tables() -> None:
    with mlflow.start_run(run_name="tabled") as run:
        mlflow.log_table({"question": ["a", "b"], "score": [0.5, 1.0]}, "answers.json")
        mlflow.log_table({"question": ["c"], "score": [0.25]}, "answers.json")
        mlflow.log_table({"question": "d", "score": 2}, "sub/other.json")
    run_id = run.info.run_id
    table = mlflow.load_table("answers.json", run_ids=[run_id], extra_columns=["run_id"])
    FOUND["table"] = {name: table[name].tolist() for name in ("question", "score")}
    FOUND["of"] = (table["run_id"] == run_id).tolist()
    FOUND["everywhere"] = len(mlflow.load_table("answers.json"))
    FOUND["tabled"] = json.loads(mlflow.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    stored = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="answers.json"))
    FOUND["as json"] = json.loads(stored.read_text())
    try:
        mlflow.load_table("none.json")
        FOUND["no table"] = "found"
    except mlflow.exceptions.MlflowException:
        FOUND["no table"] = "refused"


def refused() -> None:
    calls = mlflow.MlflowClient()
    said = []
    for call in (
        lambda: calls.get_run("0" * 32),
        lambda: calls.create_experiment("classical"),
        lambda: calls.search_runs(["0"], "metrics.x <"),
        lambda: calls.get_registered_model("none"),
        lambda: mlflow.set_experiment(experiment_id="999999"),
    ):
        try:
            call()
            said.append("taken")
        except mlflow.exceptions.MlflowException as error:
            said.append(error.error_code)
    FOUND["refused"] = said
    FOUND["absent"] = mlflow.get_experiment_by_name("none")


def main() -> None:
    mlflow.set_tracking_uri(sys.argv[2])
    experiment = mlflow.set_experiment("classical")
    FOUND["named"] = (experiment.name, experiment.lifecycle_stage)
    run_id = logging("classical")
    failing()
    resuming(run_id)
    threads()
    reading(run_id)
    client(run_id)
    registry(run_id)
    tables()
    refused()
    print(json.dumps(FOUND, sort_keys=True, default=list))


main()
