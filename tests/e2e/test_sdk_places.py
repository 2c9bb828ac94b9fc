"""Where a script's runs and questions go: what its arguments, its environment and the server say of it."""

from collections.abc import Callable
from pathlib import Path

from tests.e2e.test_sdk import environment, python
from tests.servers import ServerProcess


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
