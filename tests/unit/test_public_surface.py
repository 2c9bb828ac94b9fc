"""What users may rely on: listed, sorted, typed, documented, and cheap to import."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final, get_type_hints

import pytest

import stepstream

ROOT: Final = Path(__file__).parents[2]
CLASSES: Final = ["AsyncRun", "FinishReport", "Lag", "MlflowClient", "Run", "Stats"]
MAX_IMPORT_S: Final = 0.150
"""`import stepstream` in a training script; NumPy, zstandard and aiohttp load later, off the calling thread."""


def public_methods(name: str) -> list[tuple[str, object]]:
    members = inspect.getmembers(getattr(stepstream, name))
    return [(member, value) for member, value in members if not member.startswith("_") and inspect.isroutine(value)]


def test_the_public_names_are_sorted_and_exist() -> None:
    assert stepstream.__all__ == sorted(stepstream.__all__)
    for name in stepstream.__all__:
        assert getattr(stepstream, name) is not None


def test_the_public_names_are_these() -> None:
    assert {"AsyncRun", "FinishReport", "Lag", "Run", "Stats", "start_run", "__version__"} <= set(stepstream.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        stepstream.no_such_name


@pytest.mark.parametrize(
    "method",
    ["log", "log_metric", "log_metrics", "log_param", "log_params", "set_tag", "set_tags", "flush", "finish"],
)
def test_a_run_and_its_async_twin_offer_the_same(method: str) -> None:
    own = inspect.signature(getattr(stepstream.Run, method))
    twin = inspect.signature(getattr(stepstream.AsyncRun, method))
    assert list(own.parameters) == list(twin.parameters)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_is_typed_and_documented(name: str) -> None:
    for method, value in public_methods(name):
        hints = inspect.signature(value)  # type: ignore[arg-type]
        untyped = [
            p.name for p in hints.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert untyped == [], f"{name}.{method}"
        assert hints.return_annotation is not hints.empty, f"{name}.{method}"
        assert inspect.getdoc(value), f"{name}.{method}"


@pytest.mark.parametrize("name", [name for name in stepstream.__all__ if inspect.isfunction(getattr(stepstream, name))])
def test_every_public_function_is_typed_and_documented(name: str) -> None:
    function = getattr(stepstream, name)
    hints = inspect.signature(function)
    assert [p.name for p in hints.parameters.values() if p.annotation is p.empty] == []
    assert hints.return_annotation is not hints.empty
    assert inspect.getdoc(function)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("start_run", ["run_id", "experiment_id", "run_name", "nested", "parent_run_id", "tags", "description"]),
        ("log_metric", ["key", "value", "step", "synchronous", "timestamp", "run_id"]),
        ("log_artifact", ["local_path", "artifact_path", "run_id"]),
        ("search_runs", ["experiment_ids", "filter_string", "run_view_type", "max_results", "order_by"]),
        ("register_model", ["model_uri", "name", "await_registration_for", "tags"]),
    ],
)
def test_functions_that_mlflow_has_take_its_arguments(name: str, parameters: list[str]) -> None:
    assert set(parameters) <= set(inspect.signature(getattr(stepstream, name)).parameters)


def test_start_run_is_typed_and_documented() -> None:
    assert get_type_hints(stepstream.start_run)["return"] is stepstream.Run
    assert inspect.getdoc(stepstream.start_run)


@pytest.mark.parametrize("package", ["stepstream", "stepstream_ingest", "stepstream_schema"])
def test_every_package_says_that_it_is_typed(package: str) -> None:
    module = importlib.import_module(package)
    assert Path(module.__path__[0], "py.typed").exists()


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert stepstream.__version__ == project["version"]


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    script = """
import json, sys, time
began = time.process_time()
import stepstream
took = time.process_time() - began
print(json.dumps([took, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", script])) for _ in range(10)]
    heavy = {
        "numpy",
        "zstandard",
        "aiohttp",
        "asyncpg",
        "asyncio",
        "aiobotocore",
        "torch",
        "mlflow",
        "stepstream_ingest",
    }
    assert heavy.isdisjoint(runs[0][1])
    # Its own time, and the quickest of ten: a busy machine makes an import slower, never quicker.
    assert min(took for took, _ in runs) < MAX_IMPORT_S


def test_nothing_of_ours_has_a_name_that_says_nothing() -> None:
    vague = {"utils", "helpers", "common", "manager", "misc", "core"}
    sources = [path for root in ("client", "ingest", "schema") for path in (ROOT / root).rglob("*.py")]
    assert [str(path) for path in sources if path.stem in vague or path.parent.name in vague] == []


def test_every_module_says_what_it_is_for() -> None:
    sources = [path for root in ("client", "ingest", "schema") for path in (ROOT / root).rglob("*.py")]
    silent = [path for path in sources if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert [str(path.relative_to(ROOT)) for path in silent] == []
