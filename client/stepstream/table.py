"""Runs and logged models as tables of pandas, with MLflow's columns."""

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from stepstream.entities import LoggedModel, Run
from stepstream.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas


def of_runs(runs: Sequence[Run]) -> "pandas.DataFrame":
    """A row a run: run_id, experiment_id, status, artifact_uri, start_time, end_time, metrics.*, params.*, tags.*.

    What a run does not have is NaN for a metric, None for a param or tag. Raises ConfigurationError without pandas.
    """
    pandas = _pandas()
    columns: dict[str, Any] = {
        name: [getattr(run.info, name) for run in runs]
        for name in ("run_id", "experiment_id", "status", "artifact_uri")
    }
    for name in ("start_time", "end_time"):
        times = [getattr(run.info, name) for run in runs]
        # One that pandas cannot say costs no other row.
        columns[name] = pandas.to_datetime(pandas.Series(times, dtype="Int64"), unit="ms", utc=True, errors="coerce")
    for prefix, absent in (("metrics", float("nan")), ("params", None), ("tags", None)):
        said = [getattr(run.data, prefix) for run in runs]
        for key in dict.fromkeys(key for one in said for key in one):
            columns[f"{prefix}.{key}"] = [one.get(key, absent) for one in said]
    return pandas.DataFrame(columns)


def of_models(models: Sequence[LoggedModel]) -> "pandas.DataFrame":
    """A row a logged model, a column for each of its fields. Raises ConfigurationError without pandas."""
    names = [field.name for field in fields(LoggedModel)]
    return _pandas().DataFrame([{name: getattr(one, name) for name in names} for one in models], columns=names)


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ConfigurationError("a search makes a pandas table: pip install 'stepstream[dataframe]'") from error
    return pandas
