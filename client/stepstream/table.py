"""Runs as a table of pandas, with MLflow's columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepstream.entities import Run
from stepstream.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas


def of_runs(runs: Sequence[Run]) -> "pandas.DataFrame":
    """A row a run: run_id, experiment_id, status, artifact_uri, start_time, end_time, metrics.*, params.*, tags.*.

    What a run does not have is NaN for a metric, None for a param or tag. Raises ConfigurationError without pandas.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ConfigurationError("search_runs makes a pandas table: pip install 'stepstream[dataframe]'") from error
    columns: dict[str, Any] = {
        name: [getattr(run.info, name) for run in runs]
        for name in ("run_id", "experiment_id", "status", "artifact_uri")
    }
    for name in ("start_time", "end_time"):
        times = [getattr(run.info, name) for run in runs]
        columns[name] = pandas.to_datetime(pandas.Series(times, dtype="Int64"), unit="ms", utc=True)
    for prefix, absent in (("metrics", float("nan")), ("params", None), ("tags", None)):
        said = [getattr(run.data, prefix) for run in runs]
        for key in dict.fromkeys(key for one in said for key in one):
            columns[f"{prefix}.{key}"] = [one.get(key, absent) for one in said]
    return pandas.DataFrame(columns)
