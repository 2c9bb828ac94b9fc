"""Takes what a source has to a target, run by run; what was taken is not taken again."""

import asyncio
import mimetypes
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from stepstream.artifacts.batch import Batch
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.item import Item
from stepstream.artifacts.remote import Remote
from stepstream.artifacts.source import FileSource
from stepstream.errors import ArtifactError, QueryError
from stepstream.importing.target import SOURCE_TAG, Target
from stepstream.importing.values import (
    Point,
    SourceExperiment,
    SourceLoggedModel,
    SourceModel,
    SourceModelMetric,
    SourceRun,
)
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
    again: bool,
    moved: Moved,
    progress: Callable[[Moved], None],
) -> None:
    """Everything, or the experiments of these names alone, which leaves the registry out.

    What is here already is passed over, unless it has changed in the source, or `again` asks for it.

    Raises QueryError; then, too, `moved` says what was done until there.
    """
    chosen = [one for one in source.experiments() if not only or one.name in only]
    missing = sorted(set(only) - {one.name for one in chosen})
    moved.problems += [f"there is no experiment {name!r} in the source" for name in missing]
    work = _Work(source, target, settings, artifacts, again, moved, progress)
    # All models first: runs of any experiment may have measured, read or made them.
    for begun in [one for one in map(work.begin, chosen) if one is not None]:
        work.experiment(begun)
    moved.experiments += len(chosen)
    for model in [] if only else source.models():
        moved.problems += target.model(model, copied=artifacts == "copy")
        moved.models += 1


@dataclass(frozen=True, slots=True)
class _Begun:
    experiment: SourceExperiment
    number: str
    """Here."""
    models: Sequence[tuple[SourceLoggedModel, str]]
    """With the fingerprints that they have here."""


@dataclass(frozen=True, slots=True)
class _Work:
    source: Source
    target: Target
    settings: Settings
    artifacts: Artifacts
    again: bool
    moved: Moved
    progress: Callable[[Moved], None]
    measured: dict[str, dict[str, list[SourceModelMetric]]] = field(default_factory=dict)
    """By run, and by model."""

    def begin(self, experiment: SourceExperiment) -> _Begun | None:
        """Make it and its models; None if it stays as it is."""
        number, deleted = self.target.experiment(experiment)
        if deleted:
            # It is deleted here last of all: then everything of it had been taken.
            if not experiment.deleted:
                problem = f"experiment {experiment.name!r} is deleted here; restore it to take its runs"
                self.moved.problems.append(problem)
            return None
        models = []
        for model in self.source.logged_models(experiment):
            models.append((model, self.target.begin_model(model, number)))
            for metric in model.metrics:
                of_run = self.measured.setdefault(metric.run_id, {})
                of_run.setdefault(model.model_id, []).append(metric)
        return _Begun(experiment, number, models)

    def experiment(self, begun: _Begun) -> None:
        """Its runs, and the files of its models."""
        for run in self.source.runs(begun.experiment):
            self._run(run, begun.experiment.name)
            self.progress(self.moved)
        for model, known in begun.models:
            self._model(model, begun.number, known)
        if begun.experiment.deleted:
            self.target.delete_experiment(begun.number)

    def _run(self, run: SourceRun, experiment: str) -> None:
        measured = self.measured.get(run.run_id, {})
        if measured:
            # Of a model of another experiment it may come to be known later than the run itself.
            run = replace(run, version=[*run.version, sorted(map(repr, measured.items()))])
        fingerprint = run.fingerprint(self.artifacts)
        if not self.again and self.target.fingerprint(run.run_id) == fingerprint:
            self.moved.skipped += 1
            return
        self.target.begin(run, experiment)
        self.target.points(run.run_id, self.source.points(run), self._sent)
        for model_id, metrics in measured.items():
            self.target.measured(run.run_id, metrics, model_id)
        tags: dict[str, str] = {}
        left_out: list[str] = []
        if self.artifacts == "copy":
            self.moved.files += _files(self.source, self.settings, run, left_out)
        elif run.artifact_uri:
            tags[SOURCE_TAG] = run.artifact_uri
        self.moved.problems += left_out
        self.moved.problems += self.target.settle(run, INCOMPLETE if left_out else fingerprint, tags)
        self.moved.runs += 1

    def _model(self, model: SourceLoggedModel, number: str, known: str) -> None:
        state, files = model.state(), model.files(self.artifacts)
        known_state, _, known_files = known.partition(" ")
        if not self.again and (known_state, known_files) == (state, files):
            return
        tags = {SOURCE_TAG: model.artifact_uri}
        if self.artifacts == "copy":
            tags = {}
            problems: list[str] = []
            if self.again or known_files != files:
                self.moved.files += _model_files(self.source, self.target, model, number, problems)
            files = INCOMPLETE if problems else files
            self.moved.problems += problems
        self.target.settle_model(model, f"{state} {files}", tags)
        self.moved.logged_models += 1

    def _sent(self, points: int) -> None:
        self.moved.points += points
        self.progress(self.moved)


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
