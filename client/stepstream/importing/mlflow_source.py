"""The border to the `mlflow` package, which reads whatever MLflow has written: a server, a database, a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from stepstream.errors import ConfigurationError, QueryError
from stepstream.importing.values import Point, SourceExperiment, SourceModel, SourceRun, SourceVersion

PAGE: Final = 500
ROWS: Final = 50_000
"""Rows of a database that are read at once."""
HISTORY: Final = (
    "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = :run ORDER BY key, timestamp, step"
)


class MlflowSource:
    """Reads, and never writes."""

    def __init__(self, uri: str) -> None:
        # Newer versions read a folder only when they are asked to.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow import MlflowClient
            from mlflow.entities import ViewType
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"reading what MLflow has written needs the package {error.name!r}: pip install 'stepstream[import]'"
            ) from error
        self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._all = ViewType.ALL
        self._engine: Any = getattr(self._client._tracking_client.store, "engine", None)

    def experiments(self) -> Iterator[SourceExperiment]:
        """All of them, deleted ones included."""
        for one in _pages(self._client.search_experiments, view_type=self._all):
            yield SourceExperiment(
                experiment_id=str(one.experiment_id),
                name=one.name,
                deleted=one.lifecycle_stage == "deleted",
                tags=dict(one.tags),
            )

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """All of its runs, deleted ones included, oldest first."""
        ids, order = [experiment.experiment_id], ["attributes.start_time ASC"]
        for one in _pages(self._client.search_runs, ids, run_view_type=self._all, order_by=order):
            yield _run(one)

    def points(self, run: SourceRun) -> Iterator[Point]:
        """Its full histories, in an order that is the same every time."""
        if self._engine is not None:
            yield from self._rows(run.run_id)
            return
        for key in sorted({point[0] for point in run.latest}):
            history = self._client.get_metric_history(run.run_id, key)
            yield from sorted((key, float(one.value), one.timestamp, one.step) for one in history)

    def files(self, run: SourceRun) -> Iterator[str]:
        """The paths of its artifacts."""
        folders = [""]
        while folders:
            for one in self._client.list_artifacts(run.run_id, folders.pop() or None):
                if one.is_dir:
                    folders.append(one.path)
                else:
                    yield one.path

    def fetch(self, run: SourceRun, path: str, destination: Path) -> Path:
        """One of them, as a local file."""
        return Path(self._client.download_artifacts(run.run_id, path, str(destination)))

    def models(self) -> Iterator[SourceModel]:
        """All registered models."""
        for one in _pages(self._client.search_registered_models):
            quote = '"' if "'" in one.name else "'"
            versions = _pages(self._client.search_model_versions, f"name = {quote}{one.name}{quote}")
            yield SourceModel(
                name=one.name,
                description=one.description or "",
                tags=dict(one.tags),
                aliases={alias: int(version) for alias, version in self._aliases(one.name).items()},
                versions=sorted(map(_version, versions), key=lambda version: version.version),
            )

    def _aliases(self, name: str) -> dict[str, Any]:
        # A search leaves them out.
        return dict(self._client.get_registered_model(name).aliases)

    def _rows(self, run_id: str) -> Iterator[Point]:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            result = connection.execution_options(stream_results=True).execute(text(HISTORY), {"run": run_id})
            for rows in result.partitions(ROWS):
                for key, value, time_ms, step, is_nan in rows:
                    yield key, float("nan") if is_nan else float(value), time_ms, step


@contextmanager
def reading() -> Iterator[None]:
    """Raises QueryError for whatever the package says when it cannot read."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise QueryError(
            f"the source cannot be read, and what was taken so far stays: {error}. The same command goes on from there"
        ) from error


def _pages(search: Any, *asked: Any, **more: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*asked, max_results=PAGE, page_token=token, **more)
        yield from page
        token = page.token
        if not token:
            return


def _run(one: Any) -> SourceRun:
    inputs = one.inputs.dataset_inputs if one.inputs is not None else []
    return SourceRun(
        run_id=one.info.run_id,
        name=one.info.run_name or "",
        user=one.info.user_id or "",
        status=one.info.status,
        start_time_ms=one.info.start_time or 0,
        end_time_ms=one.info.end_time,
        deleted=one.info.lifecycle_stage == "deleted",
        artifact_uri=one.info.artifact_uri or "",
        params=dict(one.data.params),
        tags=dict(one.data.tags),
        latest=[(metric.key, metric.value, metric.timestamp, metric.step) for metric in one.data._metric_objs],
        datasets=[
            {
                "tags": [{"key": tag.key, "value": tag.value} for tag in used.tags],
                "dataset": {name: value for name, value in dict(used.dataset).items() if value is not None},
            }
            for used in inputs
        ],
    )


def _version(one: Any) -> SourceVersion:
    return SourceVersion(
        version=int(one.version),
        source=one.source,
        run_id=one.run_id or "",
        description=one.description or "",
        stage=one.current_stage or "None",
        tags=dict(one.tags),
    )
