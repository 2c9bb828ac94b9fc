"""MLflow's functions that log files, and tables in files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stepstream import active
from stepstream.fluent import experiment_id
from stepstream.implicit import known, open_run, run_of, wait
from stepstream.listed import listed
from stepstream.tracking.client import MlflowClient

if TYPE_CHECKING:
    import pandas


def log_artifact(
    local_path: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Send a file, or a directory under its own name, in the background. Raises ArtifactError for what is neither."""
    run = run_of(run_id)
    local = Path(local_path)
    if run is None:
        MlflowClient().log_artifact(str(run_id), local, artifact_path)
    elif local.is_dir():
        run.log_artifacts(local, f"{artifact_path}/{local.name}" if artifact_path else local.name)
    else:
        run.log_artifact(local, artifact_path)


def log_artifacts(
    local_dir: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Send every file below a directory, in the background."""
    run = run_of(run_id)
    if run is None:
        MlflowClient().log_artifacts(str(run_id), Path(local_dir), artifact_path)
    else:
        run.log_artifacts(local_dir, artifact_path)


def log_text(text: str, artifact_file: str, run_id: str | None = None) -> None:
    """Store a text as an artifact, in the background."""
    run = run_of(run_id)
    if run is None:
        MlflowClient().log_text(str(run_id), text, artifact_file)
    else:
        run.log_text(text, artifact_file)


def log_dict(dictionary: Mapping[str, Any], artifact_file: str, run_id: str | None = None) -> None:
    """Store a dictionary as JSON, or as YAML where the file is called so, in the background."""
    run = run_of(run_id)
    if run is None:
        MlflowClient().log_dict(str(run_id), dictionary, artifact_file)
    else:
        run.log_dict(dictionary, artifact_file)


def log_figure(figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None) -> None:
    """Store a figure of matplotlib or plotly, in the background."""
    open_run().log_figure(figure, artifact_file, save_kwargs=save_kwargs)


def log_image(
    image: Any,
    artifact_file: str | None = None,
    key: str | None = None,
    step: int | None = None,
    timestamp: int | None = None,
    synchronous: bool | None = None,
) -> None:
    """Store an image of PIL, or an array, in the background: as a file, or as the image of a key at a step."""
    run = open_run()
    run.log_image(image, artifact_file, key, step, timestamp)
    if synchronous:
        # A small one stands beside it.
        run.flush_artifacts()
    wait(run, synchronous)


def log_stream(stream: IO[bytes], artifact_file: str, run_id: str | None = None) -> None:
    """Store what a binary file object holds; it is read in the background, unless the run is not open here."""
    run = run_of(run_id)
    if run is None:
        MlflowClient().log_stream(str(run_id), stream, artifact_file)
    else:
        run.log_artifact(stream, artifact_file)


def log_table(data: Any, artifact_file: str, run_id: str | None = None) -> None:
    """Append rows to a table that is stored as an artifact, .json or .parquet: reads what is there, and waits.

    `data` is a pandas table, or a mapping of columns. Raises QueryError, ArtifactError, and ConfigurationError where
    pandas is missing.
    """
    MlflowClient().log_table(known(run_id), data, artifact_file)


def load_table(
    artifact_file: str,
    run_ids: Sequence[str] | str | None = None,
    extra_columns: Sequence[str] | str | None = None,
) -> "pandas.DataFrame":
    """Rows that log_table has stored under this name, in these runs or in all of the experiment that runs belong to.

    `extra_columns` names columns of search_runs that each row is to have. Raises as log_table does.
    """
    active.flush()
    runs = None if run_ids is None else listed(run_ids)
    return MlflowClient().load_table(experiment_id(), artifact_file, runs, listed(extra_columns))


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """Where the open run's artifacts lie, or one of them."""
    uri = open_run().info.artifact_uri
    return f"{uri}/{artifact_path}" if artifact_path else uri
