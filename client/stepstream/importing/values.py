"""What a source has, as values."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Point: TypeAlias = tuple[str, float, int, int]
"""(key, value, time in ms, step)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceExperiment:
    """One experiment."""

    experiment_id: str
    name: str
    deleted: bool
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRun:
    """One run, without its histories."""

    run_id: str
    name: str
    user: str
    status: str
    start_time_ms: int
    end_time_ms: int | None
    deleted: bool
    artifact_uri: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    latest: Sequence[Point]
    datasets: Sequence[Mapping[str, Any]]
    """As MLflow's protocol says them."""
    model_inputs: Sequence[str] = ()
    """Logged models that it has read."""
    model_outputs: Sequence[tuple[str, int]] = ()
    """Logged models that it has made, and at which step."""
    version: Sequence[Any] = ()
    """Whatever else tells that the source has gone on, such as the sizes of files."""

    def fingerprint(self, artifacts: str) -> str:
        """Changes whenever the run has been written to since, or its artifacts are to be taken otherwise."""
        said = [
            self.status,
            self.end_time_ms,
            self.deleted,
            sorted(self.params.items()),
            sorted(self.tags.items()),
            sorted(map(repr, self.latest)),
            len(self.datasets),
            [*self.model_inputs, *map(list, self.model_outputs)],
            artifacts,
            *map(repr, self.version),
        ]
        return _digest(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModelMetric:
    """What a run has measured of a logged model."""

    run_id: str
    point: Point
    dataset_name: str
    dataset_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLoggedModel:
    """One logged model."""

    model_id: str
    name: str
    model_type: str
    source_run_id: str
    status: str
    """READY, PENDING or UPLOAD_FAILED."""
    artifact_uri: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[SourceModelMetric]
    updated_at_ms: int
    version: Sequence[Any] = ()
    """Whatever else tells that its files are others now, such as their sizes."""

    def state(self) -> str:
        """Changes with what is said of it."""
        metrics = sorted(map(repr, self.metrics))
        return _digest([self.status, sorted(self.params.items()), sorted(self.tags.items()), metrics])

    def files(self, artifacts: str) -> str:
        """Changes with its files, which are large, or when they are to be taken otherwise."""
        return _digest([self.updated_at_ms, artifacts, *map(repr, self.version)])


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVersion:
    """One version of a registered model."""

    version: int
    source: str
    run_id: str
    model_id: str
    description: str
    stage: str
    tags: Mapping[str, str]
    location: str = ""
    """Where its files are in the source, if `source` does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """One registered model with its versions, the lowest number first."""

    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    versions: Sequence[SourceVersion]


def _digest(said: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def of_name(name: str) -> str:
    """A filter that finds this name, and others too where it has both kinds of quotes, which none can say."""
    if "'" in name and '"' in name:
        return "name LIKE '" + name.replace("'", "_") + "'"
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"
