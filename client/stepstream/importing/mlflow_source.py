"""The border to the `mlflow` package, which reads whatever MLflow has written: a server, a database, a folder."""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from stepstream.errors import ArtifactError, ConfigurationError, QueryError
from stepstream.importing.mlflow_rows import MlflowRows
from stepstream.importing.values import (
    Point,
    SourceExperiment,
    SourceLoggedModel,
    SourceModel,
    SourceModelMetric,
    SourceRun,
    SourceVersion,
    of_name,
)

PAGE: Final = 500
NO_SUCH_QUESTION: Final = ("ENDPOINT_NOT_FOUND", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST")
NAMED: Final = re.compile(r"(models|runs):")
"""Sources that name what files are of, and not where they are."""
OF_MODEL: Final = re.compile(r"/models/(m-[0-9a-f]{32})/artifacts/?$")


class MlflowSource:
    """Reads, and never writes."""

    def __init__(self, uri: str, *, copies: bool = True) -> None:
        """`copies` says that files are wanted, so that a run is another when it has others."""
        # Newer versions read a folder only when they are asked to.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow import MlflowClient
            from mlflow.entities import ViewType
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"reading what MLflow has written needs the package {error.name!r}: pip install 'stepstream[import]'"
            ) from error
        self._uri = uri
        self._copies = copies
        self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._all = ViewType.ALL
        engine = getattr(self._client._tracking_client.store, "engine", None)
        self._rows = MlflowRows(engine) if engine is not None else None

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
        pages = _pages(self._client.search_runs, ids, run_view_type=self._all, order_by=order)
        while some := list(itertools.islice(pages, PAGE)):
            counts = self._rows.counts([one.info.run_id for one in some]) if self._rows is not None else {}
            for one in some:
                # A search leaves out which models a run has read.
                run = _run(self._client.get_run(one.info.run_id) if self._has_models else one)
                yield replace(run, version=[counts.get(run.run_id), self._version(self._run_files(run))])

    def points(self, run: SourceRun) -> Iterator[Point]:
        """Its full histories, in an order that is the same every time."""
        if self._rows is not None:
            yield from self._rows.points(run.run_id)
            return
        for key in sorted({point[0] for point in run.latest}):
            history = self._client.get_metric_history(run.run_id, key)
            yield from sorted((key, float(one.value), one.timestamp, one.step) for one in history)

    def files(self, run: SourceRun) -> Iterator[str]:
        """The paths of its artifacts. Raises ArtifactError where they cannot be listed."""
        path = None
        for path, _ in self._run_files(run):
            yield path
        if path is None:
            _check_near(run)

    def fetch(self, run: SourceRun, path: str, destination: Path) -> Path:
        """One of them, as a local file. Raises ArtifactError for one that cannot be read."""
        with _fetching():
            return Path(self._client.download_artifacts(run.run_id, path, str(destination)))

    @cached_property
    def _has_models(self) -> bool:
        """Whether there is any logged model: most sources are older than that, and asking for each run is dear."""
        ids = [one.experiment_id for one in self.experiments() if not one.deleted]
        groups = (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))
        return any(self._search_models(group, max_results=1) for group in groups)

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """Those of MLflow 3 that are not deleted; older versions have none."""
        if experiment.deleted or not self._has_models:
            return
        for one in _pages(self._search_models, [experiment.experiment_id]):
            model = _logged_model(one)
            yield replace(model, version=[self._version(self._model_files(model))])

    def _search_models(self, experiments: Sequence[str], **page: Any) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.store.entities import PagedList

        search = getattr(self._client, "search_logged_models", None)
        if search is None:
            return PagedList([], None)
        try:
            return search(experiments, **page)
        except MlflowException as error:
            # A server of MLflow 2 does not know the question: it has none.
            if error.error_code not in NO_SUCH_QUESTION:
                raise
            return PagedList([], None)

    def model_files(self, model: SourceLoggedModel) -> Iterator[str]:
        """The paths of a logged model's artifacts. Raises ArtifactError where they cannot be listed."""
        yield from (path for path, _ in self._model_files(model))

    def fetch_model_file(self, model: SourceLoggedModel, path: str, destination: Path) -> Path:
        """One of them, as a local file. Raises ArtifactError for one that cannot be read."""
        from mlflow.artifacts import download_artifacts

        uri = f"{model.artifact_uri}/{path}"
        place = {"artifact_uri": uri, "dst_path": str(destination), "tracking_uri": self._uri}
        with _fetching():
            return Path(download_artifacts(**place))

    def models(self) -> Iterator[SourceModel]:
        """All registered models."""
        for one in _pages(self._client.search_registered_models):
            found = _pages(self._client.search_model_versions, of_name(one.name))
            versions = [version for version in found if version.name == one.name]
            yield SourceModel(
                name=one.name,
                description=one.description or "",
                tags=dict(one.tags),
                aliases={alias: int(version) for alias, version in self._aliases(one.name).items()},
                versions=sorted(map(self._registered, versions), key=lambda version: version.version),
            )

    def _registered(self, one: Any) -> SourceVersion:
        version = _version(one)
        if self._copies or not NAMED.match(version.source):
            return version
        return replace(version, location=self._client.get_model_version_download_uri(one.name, one.version))

    def _run_files(self, run: SourceRun) -> Iterator[tuple[str, int]]:
        return _listed(lambda folder: self._client.list_artifacts(run.run_id, folder))

    def _model_files(self, model: SourceLoggedModel) -> Iterator[tuple[str, int]]:
        return _listed(lambda folder: self._client.list_logged_model_artifacts(model.model_id, folder))

    def _version(self, files: Iterator[tuple[str, int]]) -> str:
        """Another one when files have come since, or have grown. No run changes for that in the source."""
        if not self._copies:
            return ""
        try:
            return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()
        except ArtifactError:
            return "not listed"  # whoever asks for the files comes upon it, and says it

    def _aliases(self, name: str) -> dict[str, Any]:
        # A search leaves them out.
        return dict(self._client.get_registered_model(name).aliases)


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


@contextmanager
def _fetching() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the client of the file's store raises, the other files are taken
        raise ArtifactError(f"it cannot be read: {error}") from error


def _check_near(run: SourceRun) -> None:
    """A run without any file is one thing, a disk that is not here another. Raises ArtifactError."""
    place = urlsplit(run.artifact_uri)
    if place.scheme not in ("", "file"):
        return
    of_experiment = Path(unquote(place.path)).parent.parent
    # MLflow makes the folder of all experiments when it is started, and others with the first file.
    if not of_experiment.parent.exists():
        raise ArtifactError(
            f"there is no folder {of_experiment.parent} here; import on its machine, or with --artifacts reference"
        )


def _listed(list_folder: Callable[[str | None], Any]) -> Iterator[tuple[str, int]]:
    """Paths and sizes."""
    folders = [""]
    while folders:
        try:
            inside = list_folder(folders.pop() or None)
        except Exception as error:  # whatever the client of the files' store raises, the other runs are taken
            raise ArtifactError(f"they cannot be listed: {error}") from error
        folders += [one.path for one in inside if one.is_dir]
        yield from ((one.path, one.file_size or 0) for one in inside if not one.is_dir)


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
        model_inputs=[used.model_id for used in getattr(one.inputs, "model_inputs", None) or ()],
        model_outputs=[
            (made.model_id, made.step) for made in getattr(getattr(one, "outputs", None), "model_outputs", None) or ()
        ],
    )


def _logged_model(one: Any) -> SourceLoggedModel:
    status = str(one.status)
    return SourceLoggedModel(
        model_id=one.model_id,
        name=one.name or "",
        model_type=one.model_type or "",
        source_run_id=one.source_run_id or "",
        status="UPLOAD_FAILED" if "FAILED" in status else status.rpartition(".")[2].removeprefix("LOGGED_MODEL_"),
        artifact_uri=one.artifact_location,
        params=dict(one.params or {}),
        tags=dict(one.tags or {}),
        metrics=[
            SourceModelMetric(
                run_id=metric.run_id,
                point=(metric.key, metric.value, metric.timestamp, metric.step),
                dataset_name=metric.dataset_name or "",
                dataset_digest=metric.dataset_digest or "",
            )
            for metric in one.metrics or ()
            if metric.run_id
        ],
        updated_at_ms=one.last_updated_timestamp,
    )


def _version(one: Any) -> SourceVersion:
    # A search does not say it; the source does.
    of_model = OF_MODEL.search(one.source)
    return SourceVersion(
        version=int(one.version),
        source=one.source,
        run_id=one.run_id or "",
        model_id=getattr(one, "model_id", None) or (of_model[1] if of_model else ""),
        description=one.description or "",
        stage=one.current_stage or "None",
        tags=dict(one.tags),
    )
