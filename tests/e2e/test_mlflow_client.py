"""The real MLflow client, versions 3 and 2: tracking, the registry, and artifacts in the embedded store and S3."""

import importlib.metadata
import json
import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import ServerProcess
from tests.stores import BUCKET
from tests.warm import WarmPython


def python_with(version: str) -> str:
    """A Python that has this MLflow."""
    variable = f"STEPSTREAM_TEST_MLFLOW{version}"
    if found := os.environ.get(variable):
        return found
    try:
        installed = importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        installed = "none"
    if not installed.startswith(version + "."):
        pytest.skip(f"MLflow {version} is not here (the extra `frameworks`), nor named by {variable}: left out")
    return sys.executable


Client = Callable[..., str]


@pytest.fixture
def run_client(python_of_mlflow: Callable[[str], WarmPython]) -> Client:
    def run(python: str, script: str, server: ServerProcess, *arguments: str, infers: bool = False) -> str:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
        environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
        if not infers:
            # Each model is loaded in one more process, to see what it imports: half of the time, and no request to us.
            environ["MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT"] = "0"
        path = str(Path(__file__).with_name(script))
        done = python_of_mlflow(python).run(path, server.url, *arguments, environ=environ)
        assert done.returncode == 0, done.stdout + done.stderr[-4000:] + server.log.read_text()[-2000:]
        return done.stdout

    return run


@pytest.mark.parametrize("version", ["3", "2"])
def test_the_unmodified_client_registers_stages_aliases_and_loads_models(
    run_client: Client, server_factory: Callable[..., ServerProcess], version: str
) -> None:
    assert "all is well" in run_client(python_with(version), "mlflow_registry.py", server_factory())


@pytest.mark.parametrize("version", ["3", "2"])
def test_the_unmodified_client_tracks_searches_and_logs_by_itself(
    run_client: Client, server_factory: Callable[..., ServerProcess], version: str
) -> None:
    assert "all is well" in run_client(python_with(version), "mlflow_tracking.py", server_factory(), infers=True)


@pytest.mark.parametrize("store", ["embedded", "s3"])
@pytest.mark.parametrize("version", ["3", "2"])
def test_the_unmodified_client_logs_lists_and_downloads_files_and_a_model(
    request: pytest.FixtureRequest,
    run_client: Client,
    server_factory: Callable[..., ServerProcess],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    version: str,
    store: str,
) -> None:
    python = python_with(version)
    options: tuple[str, ...] = ()
    if store == "s3":
        for name, value in request.getfixturevalue("s3_environment").items():
            monkeypatch.setenv(name, value)
        options = ("--artifact-root", f"s3://{BUCKET}/{os.urandom(4).hex()}")
    server = server_factory(*options)
    run_id = run_client(python, "mlflow_client.py", server, str(tmp_path)).split()[-1]
    with urllib.request.urlopen(f"{server.url}/v1/runs/{run_id}/artifacts?recursive=1") as response:
        files = {file["path"]: file["size"] for file in json.loads(response.read())["files"]}
    # One tree, whoever looks.
    assert files["x.txt"] == files["sub/dir/x.txt"] == 5
    assert files["large/big.bin"] == 23 * 2**20


@pytest.mark.parametrize("version", ["3", "2"])
def test_every_other_endpoint_answers_the_unmodified_client(
    run_client: Client, server_factory: Callable[..., ServerProcess], version: str
) -> None:
    assert "all is well" in run_client(python_with(version), "mlflow_everything.py", server_factory())


@pytest.mark.parametrize("version", ["3", "2"])
def test_the_command_line_of_mlflow(
    run_client: Client, server_factory: Callable[..., ServerProcess], tmp_path: Path, version: str
) -> None:
    assert "all is well" in run_client(python_with(version), "mlflow_cli.py", server_factory(), str(tmp_path))


@pytest.mark.parametrize("framework", ["sklearn", "xgboost", "lightgbm"])
@pytest.mark.parametrize("version", ["3", "2"])
def test_autologging_leaves_metrics_and_a_model_that_predicts_the_same(
    run_client: Client, shared: ServerProcess, version: str, framework: str
) -> None:
    said = run_client(python_with(version), "mlflow_autolog.py", shared, framework)
    skip_what_is_missing(said)
    assert "all is well" in said


@pytest.mark.parametrize("framework", ["lightning", "transformers"])
def test_trainers_on_torch_log_every_step(
    run_client: Client, shared: ServerProcess, tmp_path: Path, framework: str
) -> None:
    said = run_client(python_with("3"), "mlflow_torch.py", shared, str(tmp_path), framework)
    skip_what_is_missing(said)
    assert "all is well" in said


def skip_what_is_missing(said: str) -> None:
    if said.startswith("not installed"):
        pytest.skip(f"{said.strip()} (the extra `frameworks`): what logs by it was left out")
