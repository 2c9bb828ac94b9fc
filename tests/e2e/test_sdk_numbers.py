"""Numbers of any type where the client asks and writes by requests, and what is none."""

from collections.abc import Callable
from pathlib import Path

from tests.e2e.test_sdk import environment, python
from tests.servers import ServerProcess


def test_numpys_whole_numbers_count_as_steps_and_times(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    script = """
import numpy as np
import stepstream as mlflow
from stepstream.entities import Metric
client = mlflow.MlflowClient()
made = client.create_experiment("e")
run_id = client.create_run(np.int64(made), start_time=np.int64(5)).info.run_id
client.log_metric(run_id, "a", 1, step=np.int64(4), timestamp=np.int32(7))
client.log_metric(run_id, "a", 1, step=np.int64(0), timestamp=8)
client.log_batch(run_id, [Metric("a", 1.0, np.int64(9), np.int8(2))])
mlflow.log_metric("a", 1, step=np.uint16(3), run_id=run_id, timestamp=np.int64(10))
print([(one.timestamp, one.step) for one in client.get_metric_history(run_id, "a")])
model = client.create_logged_model(np.int64(made), "m")
mlflow.log_metric("b", 1, step=np.int64(6), run_id=run_id, model_id=model.model_id)
print([(one.key, one.step) for one in client.get_logged_model(model.model_id).metrics])
client.set_terminated(run_id, end_time=np.int64(11))
info = client.search_runs(np.array([int(made)]))[0].info
print(info.start_time, info.end_time, client.get_experiment(np.int64(made)).name)
print(len(client.search_logged_models([np.int64(made)])), len(client.search_runs(int(made))))
print(len(client.search_runs(np.int64(made), order_by="metrics.a DESC")), len(client.search_runs([float(made)])))
"""
    assert python(script, environment(server_factory(), tmp_path)).splitlines() == [
        "[(7, 4), (8, 0), (9, 2), (10, 3)]",
        "[('b', 6)]",
        "5 11 e",
        "1 1",
        "1 1",
    ]


def test_what_is_no_number_is_refused_by_an_error_that_scripts_catch(tmp_path: Path) -> None:
    script = """
import stepstream as mlflow
client = mlflow.MlflowClient("http://127.0.0.1:9")
def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except mlflow.exceptions.MlflowException as error:
        print(error.error_code, error)
run_id = "0" * 32
refused(client.search_runs, ["abc"])
refused(client.search_runs, ["1"], run_view_type=9)
refused(client.search_experiments, [])
refused(client.search_logged_models, ["abc"])
refused(client.create_run, "abc")
refused(client.create_logged_model, "a b")
refused(client.get_experiment, "a b")
refused(client.rename_experiment, None, "n")
refused(client.set_registered_model_alias, "m", "a", "abc")
refused(client.log_metric, run_id, "a", 1, step=1.5)
refused(client.log_metric, run_id, "a", 1, timestamp=0.5)
refused(client.set_terminated, run_id, end_time=0.5)
"""
    lines = python(script, environment(None, tmp_path)).splitlines()
    assert [line.split()[0] for line in lines] == ["INVALID_PARAMETER_VALUE"] * 12
    assert lines[0].endswith("an experiment's id is a whole number, not 'abc'")
    assert lines[8].endswith("version is a whole number, not 'abc'")
