"""StepStream: log every step of every rank.

import stepstream

with stepstream.start_run(experiment="mnist") as run:
    run.log_params({"lr": 1e-3})
    for step in range(1000):
        run.log({"loss": 1 / (step + 1)}, step=step)

MLflow's names are here, too: `import stepstream as mlflow`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from stepstream.errors import (
    ArtifactError,
    BadValue,
    ConfigurationError,
    QueryError,
    RunIdentityError,
    StepStreamError,
)
from stepstream.exceptions import MlflowException
from stepstream.place import (
    get_registry_uri,
    get_tracking_uri,
    is_tracking_uri_set,
    set_registry_uri,
    set_tracking_uri,
)
from stepstream.report import FinishReport, Lag, Stats
from stepstream.run import Run
from stepstream.run import Run as ActiveRun
from stepstream.start import download_artifacts, start_run

if TYPE_CHECKING:
    from stepstream import artifacts, data, entities, exceptions, tracking
    from stepstream.async_run import AsyncRun
    from stepstream.fluent import (
        active_run,
        create_experiment,
        delete_experiment,
        delete_experiment_tag,
        delete_run,
        delete_tag,
        end_run,
        flush_artifact_async_logging,
        flush_async_logging,
        get_experiment,
        get_experiment_by_name,
        get_parent_run,
        get_run,
        last_active_run,
        log_input,
        log_inputs,
        log_metric,
        log_metrics,
        log_param,
        log_params,
        register_model,
        restore_experiment,
        restore_run,
        search_experiments,
        search_model_versions,
        search_registered_models,
        search_runs,
        set_experiment,
        set_experiment_tag,
        set_experiment_tags,
        set_model_version_tag,
        set_tag,
        set_tags,
    )
    from stepstream.fluent_artifacts import (
        get_artifact_uri,
        load_table,
        log_artifact,
        log_artifacts,
        log_dict,
        log_figure,
        log_image,
        log_stream,
        log_table,
        log_text,
    )
    from stepstream.fluent_models import (
        delete_logged_model_tag,
        finalize_logged_model,
        get_logged_model,
        initialize_logged_model,
        last_logged_model,
        log_model_params,
        log_outputs,
        search_logged_models,
        set_logged_model_tags,
    )
    from stepstream.tracking.client import MlflowClient

__version__ = "0.1.0"

# asyncio, and whatever asks questions, take longer to import than all the rest: who only logs does not pay for them.
_LATER: Final = {
    "AsyncRun": "stepstream.async_run",
    "MlflowClient": "stepstream.tracking.client",
    **dict.fromkeys(
        (
            "active_run",
            "create_experiment",
            "delete_experiment",
            "delete_experiment_tag",
            "delete_run",
            "delete_tag",
            "end_run",
            "flush_artifact_async_logging",
            "flush_async_logging",
            "get_experiment",
            "get_experiment_by_name",
            "get_parent_run",
            "get_run",
            "last_active_run",
            "log_input",
            "log_inputs",
            "log_metric",
            "log_metrics",
            "log_param",
            "log_params",
            "register_model",
            "restore_experiment",
            "restore_run",
            "search_experiments",
            "search_model_versions",
            "search_registered_models",
            "search_runs",
            "set_experiment",
            "set_experiment_tag",
            "set_experiment_tags",
            "set_model_version_tag",
            "set_tag",
            "set_tags",
        ),
        "stepstream.fluent",
    ),
    **dict.fromkeys(
        (
            "get_artifact_uri",
            "load_table",
            "log_artifact",
            "log_artifacts",
            "log_dict",
            "log_figure",
            "log_image",
            "log_stream",
            "log_table",
            "log_text",
        ),
        "stepstream.fluent_artifacts",
    ),
    **dict.fromkeys(
        (
            "delete_logged_model_tag",
            "finalize_logged_model",
            "get_logged_model",
            "initialize_logged_model",
            "last_logged_model",
            "log_model_params",
            "log_outputs",
            "search_logged_models",
            "set_logged_model_tags",
        ),
        "stepstream.fluent_models",
    ),
}
_MODULES: Final = ("artifacts", "data", "entities", "exceptions", "tracking")

__all__ = [
    "ActiveRun",
    "ArtifactError",
    "AsyncRun",
    "BadValue",
    "ConfigurationError",
    "FinishReport",
    "Lag",
    "MlflowClient",
    "MlflowException",
    "QueryError",
    "Run",
    "RunIdentityError",
    "Stats",
    "StepStreamError",
    "__version__",
    "active_run",
    "artifacts",
    "create_experiment",
    "data",
    "delete_experiment",
    "delete_experiment_tag",
    "delete_logged_model_tag",
    "delete_run",
    "delete_tag",
    "download_artifacts",
    "end_run",
    "entities",
    "exceptions",
    "finalize_logged_model",
    "flush_artifact_async_logging",
    "flush_async_logging",
    "get_artifact_uri",
    "get_experiment",
    "get_experiment_by_name",
    "get_logged_model",
    "get_parent_run",
    "get_registry_uri",
    "get_run",
    "get_tracking_uri",
    "initialize_logged_model",
    "is_tracking_uri_set",
    "last_active_run",
    "last_logged_model",
    "load_table",
    "log_artifact",
    "log_artifacts",
    "log_dict",
    "log_figure",
    "log_image",
    "log_input",
    "log_inputs",
    "log_metric",
    "log_metrics",
    "log_model_params",
    "log_outputs",
    "log_param",
    "log_params",
    "log_stream",
    "log_table",
    "log_text",
    "register_model",
    "restore_experiment",
    "restore_run",
    "search_experiments",
    "search_logged_models",
    "search_model_versions",
    "search_registered_models",
    "search_runs",
    "set_experiment",
    "set_experiment_tag",
    "set_experiment_tags",
    "set_logged_model_tags",
    "set_model_version_tag",
    "set_registry_uri",
    "set_tag",
    "set_tags",
    "set_tracking_uri",
    "start_run",
    "tracking",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"stepstream.{name}")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
