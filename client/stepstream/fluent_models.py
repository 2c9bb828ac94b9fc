"""MLflow's functions for logged models. They wait for the server. Raises QueryError."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from stepstream.entities import LoggedModel
from stepstream.fluent import every, experiment_id
from stepstream.implicit import known
from stepstream.listed import listed
from stepstream.tracking.client import MlflowClient

if TYPE_CHECKING:
    import pandas


_last: LoggedModel | None = None


def last_logged_model() -> LoggedModel | None:
    """The model that this process has begun to log last, as it is now; None where it has begun none."""
    return MlflowClient().get_logged_model(_last.model_id) if _last is not None else None


def get_logged_model(model_id: str) -> LoggedModel:
    """One logged model."""
    return MlflowClient().get_logged_model(model_id)


def initialize_logged_model(
    name: str | None = None,
    source_run_id: str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    model_type: str | None = None,
    experiment_id: str | None = None,
) -> LoggedModel:
    """A model that is about to be logged, in the experiment that runs belong to unless another is named."""
    global _last
    where = experiment_id or _own_experiment()
    _last = MlflowClient().create_logged_model(where, name, source_run_id, tags, params, model_type)
    return _last


def finalize_logged_model(model_id: str, status: str) -> LoggedModel:
    """Its files have arrived (READY), or never will (UPLOAD_FAILED)."""
    return MlflowClient().finalize_logged_model(model_id, status)


def log_model_params(params: Mapping[str, Any], model_id: str) -> None:
    """Params that the model does not have yet."""
    MlflowClient().log_model_params(model_id, params)


def set_logged_model_tags(model_id: str, tags: Mapping[str, Any]) -> None:
    """Tags of a model; the last values stay."""
    MlflowClient().set_logged_model_tags(model_id, tags)


def delete_logged_model_tag(model_id: str, key: str) -> None:
    """A tag goes."""
    MlflowClient().delete_logged_model_tag(model_id, key)


def log_outputs(models: Sequence[Any], run_id: str | None = None) -> None:
    """Logged models that the run has made, each with `model_id` and `step`; waits for what was logged before."""
    MlflowClient().log_outputs(known(run_id), models)


def search_logged_models(
    experiment_ids: Sequence[str] | str | int | None = None,
    filter_string: str | None = None,
    datasets: Sequence[Mapping[str, str]] | None = None,
    max_results: int | None = None,
    order_by: Sequence[Mapping[str, Any]] | None = None,
    output_format: Literal["pandas", "list"] = "pandas",
) -> "pandas.DataFrame | list[LoggedModel]":
    """Logged models that fit a filter, as a table or a list; without ids, of the experiment that runs belong to.

    Each order is {"field_name": ..., "ascending": ...}. Raises ConfigurationError where pandas is missing.
    """
    client, ids = MlflowClient(), listed(experiment_ids) or [_own_experiment()]

    def page(count: int, token: str | None) -> Any:
        return client.search_logged_models(ids, filter_string, datasets, count, order_by, token)

    found = every(page, max_results)
    if output_format == "list":
        return found
    from stepstream.table import of_models

    return of_models(found)


def _own_experiment() -> str:
    return experiment_id()
