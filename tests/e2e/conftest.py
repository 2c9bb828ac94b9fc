"""What tests of one file share: a server, and what imports begin with."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.importing_scene import Scene
from tests.servers import ServerProcess
from tests.warm import WarmPython


@pytest.fixture(scope="module")
def shared(initialised_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for those who look only at what they have logged themselves."""
    directory = tmp_path_factory.mktemp("shared") / "server"
    shutil.copytree(initialised_directory, directory)
    server = ServerProcess(directory)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def template(python_of_mlflow: Callable[[str], WarmPython], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("MLflow is not installed (the extra `import`): moving in from it was left out")
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    script = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    made = python_of_mlflow(sys.executable).run("-c", script, f"sqlite:///{path}", environ=os.environ)
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture
def scene(
    python_of_mlflow: Callable[[str], WarmPython], shared: ServerProcess, template: Path, tmp_path: Path
) -> Scene:
    return Scene(python_of_mlflow(sys.executable), shared, template, tmp_path)
