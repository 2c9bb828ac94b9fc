"""Takes what a source has to a target, run by run; what was taken is not taken again."""

import asyncio
import mimetypes
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from stepstream.artifacts.batch import Batch
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.item import Item
from stepstream.artifacts.remote import Remote
from stepstream.artifacts.source import FileSource
from stepstream.errors import ArtifactError, QueryError
from stepstream.importing.target import SOURCE_TAG, Target
from stepstream.importing.values import Point, SourceExperiment, SourceLoggedModel, SourceModel, SourceRun
from stepstream.settings import Settings

Artifacts = Literal["copy", "reference"]
TRIES: Final = 3
REFUSED: Final = (400, 404, 409, 411, 413, 415, 422)
"""What the server says of one file that it does not take, and of no other."""
INCOMPLETE: Final = "incomplete"
"""For a fingerprint: what could not be read now is asked for again by the next import."""


class Source(Protocol):
    """What runs can be taken from. Law: asked again, it says the same of what has not changed."""

    def experiments(self) -> Iterator[SourceExperiment]:
        """All of them."""

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """All runs of one."""

    def points(self, run: SourceRun) -> Iterator[Point]:
        """Full histories."""

    def files(self, run: SourceRun) -> Iterator[str]:
        """Paths of artifacts. Raises ArtifactError where they cannot be listed."""

    def fetch(self, run: SourceRun, path: str, destination: Path) -> Path:
        """One of them, as a local file. Raises ArtifactError for one that cannot be read."""

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """All logged models of one experiment."""

    def model_files(self, model: SourceLoggedModel) -> Iterator[str]:
        """Paths of its artifacts. Raises ArtifactError where they cannot be listed."""

    def fetch_model_file(self, model: SourceLoggedModel, path: str, destination: Path) -> Path:
        """One of them, as a local file. Raises ArtifactError for one that cannot be read."""

    def models(self) -> Iterator[SourceModel]:
        """All registered models."""


@dataclass(slots=True, kw_only=True)
class Moved:
    """What was done."""

    experiments: int = 0
    runs: int = 0
    """Taken now, or completed."""
    skipped: int = 0
    """Runs that were here already, and complete."""
    points: int = 0
    files: int = 0
    models: int = 0
    logged_models: int = 0
    """Taken now, or completed."""
    problems: list[str] = field(default_factory=list)


def move(
    source: Source,
    target: Target,
    settings: Settings,
    *,
    artifacts: Artifacts,
    only: Sequence[str],
    moved: Moved,
    progress: Callable[[Moved], None],
) -> None:
    """Everything, or the experiments of these names alone, which leaves the registry out.

    Raises QueryError; then, too, `moved` says what was done until there.
    """
    for experiment in source.experiments():
        if only and experiment.name not in only:
            continue
        _experiment(source, target, settings, experiment, artifacts, moved, progress)
        moved.experiments += 1
    for model in [] if only else source.models():
        moved.problems += target.model(model)
        moved.models += 1


def _experiment(
    source: Source,
    target: Target,
    settings: Settings,
    experiment: SourceExperiment,
    artifacts: Artifacts,
    moved: Moved,
    progress: Callable[[Moved], None],
) -> None:
    number, deleted = target.experiment(experiment)
    if deleted:
        # It is deleted here last of all: then everything of it had been taken.
        if not experiment.deleted:
            moved.problems.append(f"experiment {experiment.name!r} is deleted here; restore it to take its runs")
        return

    def sent(points: int) -> None:
        moved.points += points
        progress(moved)

    models = {one.model_id: one for one in source.logged_models(experiment)}
    known = {model_id: target.begin_model(one, number) for model_id, one in models.items()}
    for run in source.runs(experiment):
        fingerprint = run.fingerprint(artifacts)
        if target.fingerprint(run.run_id) == fingerprint:
            moved.skipped += 1
        else:
            target.begin(run, experiment.name)
            target.points(run.run_id, source.points(run), sent)
            for model_id, model in models.items():
                own = [metric for metric in model.metrics if metric.run_id == run.run_id]
                target.measured(run.run_id, own, model_id)
            tags: dict[str, str] = {}
            left_out: list[str] = []
            if artifacts == "copy":
                moved.files += _files(source, settings, run, left_out)
            elif run.artifact_uri:
                tags[SOURCE_TAG] = run.artifact_uri
            moved.problems += left_out
            moved.problems += target.settle(run, INCOMPLETE if left_out else fingerprint, tags)
            moved.runs += 1
        progress(moved)
    for model_id, model in models.items():
        fingerprint = f"{model.updated_at_ms} {artifacts}"
        if known[model_id] != fingerprint:
            _model(source, target, model, number, fingerprint, artifacts, moved)
    if experiment.deleted:
        target.delete_experiment(number)


def _model(
    source: Source,
    target: Target,
    model: SourceLoggedModel,
    experiment: str,
    fingerprint: str,
    artifacts: Artifacts,
    moved: Moved,
) -> None:
    tags = {SOURCE_TAG: model.artifact_uri}
    if artifacts == "copy":
        tags = {}
        problems: list[str] = []
        moved.files += _model_files(source, target, model, experiment, problems)
        fingerprint = INCOMPLETE if problems else fingerprint
        moved.problems += problems
    target.settle_model(model, fingerprint, tags)
    moved.logged_models += 1


def _model_files(source: Source, target: Target, model: SourceLoggedModel, experiment: str, problems: list[str]) -> int:
    stored = 0
    for path in _listed(source.model_files(model), f"the logged model {model.model_id}", problems):
        with tempfile.TemporaryDirectory(prefix="stepstream-import-") as directory:
            try:
                target.model_file(model, experiment, path, source.fetch_model_file(model, path, Path(directory)))
                stored += 1
            except (ArtifactError, QueryError) as error:
                if isinstance(error, QueryError) and error.status not in REFUSED:
                    raise
                problems.append(f"file {path} of the logged model {model.model_id} was left out: {error}")
    return stored


def _files(source: Source, settings: Settings, run: SourceRun, problems: list[str]) -> int:
    stored = 0
    for path in _listed(source.files(run), f"run {run.run_id}", problems):
        # One at a time: a checkpoint may be as large as the disk has room for.
        with tempfile.TemporaryDirectory(prefix="stepstream-import-") as directory:
            try:
                local = source.fetch(run, path, Path(directory))
                asyncio.run(_send(settings, run, path, local))
                stored += 1
            except ArtifactError as error:
                problems.append(f"artifact {path} of run {run.run_id} was left out: {error}")
    return stored


def _listed(paths: Iterator[str], owner: str, problems: list[str]) -> Iterator[str]:
    try:
        yield from paths
    except ArtifactError as error:
        problems.append(f"artifacts of {owner} were left out: {error}")


async def _send(settings: Settings, run: SourceRun, path: str, local: Path) -> None:
    item = Item(
        path=path,
        source=FileSource(local),
        content_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
        logged_at_ms=run.end_time_ms or run.start_time_ms,
        handle=Upload("", 1),
    )
    async with Remote(settings.tracking_uri, settings.token) as remote:
        for _ in range(TRIES):
            sending = Batch(remote, run.run_id, None)
            await sending.send([item])
            if sending.stored:
                return
            for _, reason in sending.failed:
                raise ArtifactError(reason)
    raise ArtifactError("the store did not take it")
