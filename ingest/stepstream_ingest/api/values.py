"""What our own JSON API answers with, and how it is made of what the slices know."""

import math
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from stepstream_ingest.registry.values import Model as KnownRegisteredModel
from stepstream_ingest.registry.values import Version as KnownVersion
from stepstream_ingest.tracking import experiments as tracked_experiments
from stepstream_ingest.tracking import models as tracked_models
from stepstream_ingest.tracking import runs as tracked_runs
from stepstream_schema.attempt import Attempt

Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]
Pairs: TypeAlias = dict[str, str]
NOT_FINITE: Final[dict[float, Literal["Infinity", "-Infinity"]]] = {math.inf: "Infinity", -math.inf: "-Infinity"}


class Experiment(Struct, kw_only=True, frozen=True):
    """One experiment."""

    experiment_id: int
    name: str
    artifact_location: str
    lifecycle_stage: Literal["active", "deleted"]
    created_at_ms: int
    updated_at_ms: int
    tags: Pairs


class Latest(Struct, kw_only=True, frozen=True):
    """A metric's latest value: of the lowest rank's newest attempt, at the largest step."""

    value: Number
    step: int
    time_ms: int


class Dataset(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a run has read; a dataset is known by its name and digest."""

    name: str
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str = ""
    profile: str = ""
    tags: Pairs = {}


class ModelUse(Struct, kw_only=True, frozen=True):
    """A logged model that a run has read or made."""

    direction: Literal["input", "output"]
    model_id: str
    step: int


class Run(Struct, kw_only=True, frozen=True):
    """One run with all that is known of it but its histories."""

    run_id: str
    experiment_id: int
    experiment: str
    name: str
    user: str
    status: str
    start_time_ms: int | None
    end_time_ms: int | None
    lifecycle_stage: Literal["active", "deleted"]
    artifact_uri: str
    params: Pairs
    tags: Pairs
    metrics: dict[str, Latest]
    datasets: list[Dataset]
    models: list[ModelUse]


class Writer(Struct, kw_only=True, frozen=True):
    """A process that has sent frames of the run."""

    writer: int
    rank: int | None
    attempt: tuple[int, int, int]
    """Restarts by the scheduler, by the elastic launcher, by hand."""
    status: str | None
    frames: int
    seen_at_ms: int


class RunWithWriters(Run, kw_only=True, frozen=True):
    """A run, and the processes that write it."""

    announced: bool
    lost: bool
    param_conflicts: int
    writers: list[Writer]


class ModelMetric(Struct, kw_only=True, frozen=True):
    """A value that a run has measured of a logged model."""

    run_id: str
    key: str
    value: Number
    step: int
    time_ms: int
    dataset_name: str
    dataset_digest: str


class LoggedModel(Struct, kw_only=True, frozen=True):
    """One logged model."""

    model_id: str
    experiment_id: int
    name: str
    model_type: str
    source_run_id: str | None
    status: str
    status_message: str
    created_at_ms: int
    updated_at_ms: int
    lifecycle_stage: Literal["active", "deleted"]
    artifact_uri: str
    params: Pairs
    tags: Pairs
    metrics: list[ModelMetric]


class ModelVersion(Struct, kw_only=True, frozen=True):
    """One version of a registered model."""

    name: str
    version: int
    source: str
    storage_location: str
    run_id: str | None
    model_id: str | None
    run_link: str
    description: str
    user: str
    stage: str
    created_at_ms: int
    updated_at_ms: int
    tags: Pairs
    aliases: list[str]


class RegisteredModel(Struct, kw_only=True, frozen=True):
    """One registered model."""

    name: str
    description: str
    created_at_ms: int
    updated_at_ms: int
    tags: Pairs
    aliases: dict[str, int]
    latest_versions: list[ModelVersion]
    """Of each stage the newest."""


def experiment(one: tracked_experiments.Experiment) -> Experiment:
    """As JSON has it."""
    return Experiment(
        experiment_id=one.experiment_id,
        name=one.name,
        artifact_location=one.artifact_location,
        lifecycle_stage=one.lifecycle_stage,  # type: ignore[arg-type]
        created_at_ms=one.created_at_ms,
        updated_at_ms=one.updated_at_ms,
        tags=dict(one.tags),
    )


def run(one: tracked_runs.Run) -> Run:
    """As JSON has it."""
    return Run(**_run(one))


def run_with_writers(one: tracked_runs.Run, job: tracked_runs.Job) -> RunWithWriters:
    """As JSON has it."""
    return RunWithWriters(
        **_run(one),
        announced=job.announced,
        lost=job.lost,
        param_conflicts=job.param_conflicts,
        writers=[_writer(writer) for writer in job.writers],
    )


def logged_model(one: tracked_models.LoggedModel, artifact_location: str) -> LoggedModel:
    """As JSON has it; the location is that of its experiment."""
    model_id = f"m-{one.model_id.hex}"
    return LoggedModel(
        model_id=model_id,
        experiment_id=one.experiment_id,
        name=one.name,
        model_type=one.model_type,
        source_run_id=_hex(one.source_run_id),
        status=one.status,
        status_message=one.status_message,
        created_at_ms=one.created_at_ms,
        updated_at_ms=one.updated_at_ms,
        lifecycle_stage=one.lifecycle_stage,  # type: ignore[arg-type]
        artifact_uri=f"{artifact_location}/models/{model_id}/artifacts",
        params=dict(one.params),
        tags=dict(one.tags),
        metrics=[_model_metric(run_id, metric) for run_id, metric in one.metrics],
    )


def version(one: KnownVersion) -> ModelVersion:
    """As JSON has it."""
    return ModelVersion(
        name=one.name,
        version=one.version,
        source=one.source,
        storage_location=one.storage_location,
        run_id=_hex(one.run_id),
        model_id=f"m-{one.model_id.hex}" if one.model_id is not None else None,
        run_link=one.run_link,
        description=one.description,
        user=one.user_id,
        stage=one.stage,
        created_at_ms=one.created_at_ms,
        updated_at_ms=one.updated_at_ms,
        tags=dict(one.tags),
        aliases=list(one.aliases),
    )


def registered_model(one: KnownRegisteredModel) -> RegisteredModel:
    """As JSON has it."""
    return RegisteredModel(
        name=one.name,
        description=one.description,
        created_at_ms=one.created_at_ms,
        updated_at_ms=one.updated_at_ms,
        tags=dict(one.tags),
        aliases=dict(one.aliases),
        latest_versions=[version(latest) for latest in one.latest],
    )


def dataset(one: tracked_runs.Dataset) -> Dataset:
    """As JSON has it."""
    return Dataset(
        name=one.name,
        digest=one.digest,
        source_type=one.source_type,
        source=one.source,
        schema=one.schema,
        profile=one.profile,
        tags=dict(one.tags),
    )


def number(value: float) -> Number:
    """Exactly, where JSON has no number for it, too."""
    return "NaN" if math.isnan(value) else NOT_FINITE.get(value, value)


def _run(one: tracked_runs.Run) -> dict[str, Any]:
    return {
        "run_id": one.run_id.hex,
        "experiment_id": one.experiment_id,
        "experiment": one.experiment,
        "name": one.name,
        "user": one.user_id,
        "status": one.status,
        "start_time_ms": one.start_time_ms,
        "end_time_ms": one.end_time_ms,
        "lifecycle_stage": one.lifecycle_stage,
        "artifact_uri": f"{one.artifact_location}/{one.run_id.hex}/artifacts",
        "params": dict(one.params),
        "tags": dict(one.tags),
        "metrics": {
            key: Latest(value=number(value), step=step, time_ms=time_ms) for key, value, step, time_ms in one.metrics
        },
        "datasets": [dataset(read) for read in one.datasets],
        "models": [
            ModelUse(direction=direction, model_id=f"m-{model.hex}", step=step)  # type: ignore[arg-type]
            for direction, model, step in one.models
        ],
    }


def _writer(one: tracked_runs.Writer) -> Writer:
    attempt = Attempt.unpack(one.attempt)
    return Writer(
        writer=one.writer,
        rank=one.rank,
        attempt=(attempt.scheduler, attempt.elastic, attempt.resume),
        status=one.status,
        frames=one.frames,
        seen_at_ms=one.seen_at_ms,
    )


def _model_metric(run_id: UUID, one: tracked_models.ModelMetric) -> ModelMetric:
    return ModelMetric(
        run_id=run_id.hex,
        key=one.key,
        value=number(one.value),
        step=one.step,
        time_ms=one.time_ms,
        dataset_name=one.dataset_name,
        dataset_digest=one.dataset_digest,
    )


def _hex(one: UUID | None) -> str | None:
    return one.hex if one is not None else None
