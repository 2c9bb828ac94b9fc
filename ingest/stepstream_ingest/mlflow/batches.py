"""Bodies of log-batch and log-metric: metrics as columns, params and tags as pairs. Pure."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Meta, Struct

from stepstream_ingest.keys import check_key
from stepstream_ingest.mlflow.fields import Fields, run_uuid
from stepstream_ingest.mlflow.router import message
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.models import ModelMetric, model_uuid
from stepstream_ingest.write.said import Said, record_of, row_of
from stepstream_schema import limits
from stepstream_schema.columns import Float64s
from stepstream_schema.records import Metrics

MAX_METRICS: Final = 1000
MAX_PARAMS: Final = 100
MAX_TAGS: Final = 100


class _Metric(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    key: str
    value: float | Literal["NaN", "Infinity", "-Infinity"]
    timestamp: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    step: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0
    run_id: str = ""
    """Said once more by MLflow 3's fluent API; the batch's counts, there as here."""


class _MetricOfModel(_Metric, frozen=True, gc=False, forbid_unknown_fields=True):
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class _Pair(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    key: str
    value: str = ""


class _Batch(Struct, frozen=True, forbid_unknown_fields=True):
    run_id: str
    metrics: Sequence[_Metric] = ()
    params: Sequence[_Pair] = ()
    tags: Sequence[_Pair] = ()


class _BatchOfModels(_Batch, frozen=True, forbid_unknown_fields=True):
    metrics: Sequence[_MetricOfModel] = ()


_PLAIN: Final = (msgspec.json.Decoder(_Batch), msgspec.json.Decoder(_BatchOfModels))
"""Of a batch as MLflow's client writes it: twice as fast as reading objects of any kind, and looking at each.

Where autologging measures a logged model, the first metric says so as a rule, and the first decoder gives up there.
"""

KNOWN_ROWS: Final = 16
"""Rows of keys that are remembered to be good, 1.1 MB at most each: a training logs one or two all day."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One request."""

    run_id: UUID
    points: Metrics | None
    of_models: Sequence[ModelMetric]
    params: Sequence[tuple[str, str]]
    tags: dict[str, str]


def read(body: bytes) -> Batch:
    """A body of log-batch. Raises ApiError, in MLflow's words, for what cannot be stored whole."""
    batch = read_plain(body)
    if batch is None and len(body) > limits.MAX_REQUEST_BYTES:
        # Objects of any kind take thirty times what their text does.
        raise rules.invalid(
            f"a batch of more than {limits.MAX_REQUEST_BYTES} bytes is read only as MLflow's client writes it, with "
            "numbers as numbers and nothing else in it; send this one in several requests"
        )
    return batch or read_any(body)


def one_by_one(metrics: Sequence[Fields]) -> Said:
    """Metrics with numbers that come as texts, steps that are left out, and what is wrong. Raises ApiError."""
    keys = [check_key(one.required_text("key"), "metric") for one in metrics]
    values = [one.number("value") for one in metrics]
    times_ms = [one.integer("timestamp") for one in metrics]
    for key, time_ms in zip(keys, times_ms, strict=True):
        if time_ms < 0:
            raise rules.invalid(
                f"Got invalid timestamp {time_ms} for metric '{key}': it is milliseconds since the epoch"
            )
    steps = [one.integer("step", 0) for one in metrics]
    return Said(keys=keys, steps=steps, times_ms=times_ms, values=_limited(values))


def of_models(metrics: Sequence[Fields], points: Said) -> list[ModelMetric]:
    """Those that belong to a logged model. Raises ApiError."""
    names = ("model_id", "dataset_name", "dataset_digest")
    return _of_models([tuple(one.text(name, "") for name in names) for one in metrics], points)


def read_plain(body: bytes) -> Batch | None:
    """A body as MLflow's client writes it; None for what needs a closer look."""
    said = _decoded(body)
    if said is None:
        return None
    keys = [one.key for one in said.metrics]
    row = row_of(keys) if keys else None
    distinct = row or tuple(dict.fromkeys(keys))
    params = [(one.key, one.value) for one in said.params]
    tags = {one.key: one.value for one in said.tags}
    if not said.run_id or "" in (*distinct, *(key for key, _ in params), *tags):
        return None
    run_id = run_uuid(said.run_id)
    _check_sizes(len(keys), len(params), len(said.tags))
    _check_keys(distinct)
    points = Said(
        keys=keys,
        steps=[one.step for one in said.metrics],
        times_ms=[one.timestamp for one in said.metrics],
        values=_limited([one.value for one in said.metrics]),
        row=row,
    )
    measured: Sequence[ModelMetric] = ()
    if isinstance(said, _BatchOfModels):
        measured = _of_models([(one.model_id, one.dataset_name, one.dataset_digest) for one in said.metrics], points)
    _check_once(params)
    return Batch(run_id=run_id, points=record_of(points), of_models=measured, params=params, tags=tags)


def _decoded(body: bytes) -> _Batch | None:
    for decoder in _PLAIN:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return decoder.decode(body)
    return None


def read_any(body: bytes) -> Batch:
    """Any body, each field looked at alone."""
    said = Fields(message(body))
    run_id = said.run_id()
    metrics, params, tags = said.sequence("metrics"), said.pairs("params"), said.pairs("tags")
    _check_sizes(len(metrics), len(params), len(tags))
    items = said.items("metrics")
    points = one_by_one(items)
    measured = of_models(items, points)
    _check_once(params)
    return Batch(run_id=run_id, points=record_of(points), of_models=measured, params=params, tags=dict(tags))


def _of_models(owners: Sequence[tuple[str, ...]], points: Said) -> list[ModelMetric]:
    """Of each point its model, its dataset's name and digest; no model for most."""
    models = {text: model_uuid(text) for text in dict.fromkeys(owner[0] for owner in owners) if text}
    if not models:
        return []
    rows = zip(points.keys, points.steps, points.times_ms, points.values.tolist(), strict=True)
    return [
        ModelMetric(
            model_id=models[model],
            key=key,
            step=step,
            time_ms=time_ms,
            value=value,
            dataset_name=dataset_name,
            dataset_digest=dataset_digest,
        )
        for (model, dataset_name, dataset_digest), (key, step, time_ms, value) in zip(owners, rows, strict=True)
        if model
    ]


@lru_cache(maxsize=KNOWN_ROWS)
def _check_keys(distinct: tuple[str, ...]) -> None:
    for key in distinct:
        check_key(key, "metric")


def _check_once(params: Sequence[tuple[str, str]]) -> None:
    keys = [key for key, _ in params]
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise rules.invalid(
            f"Duplicate parameter keys have been submitted: {twice}. Please ensure the request "
            "contains only one param value per param key."
        )


def _check_sizes(metrics: int, params: int, tags: int) -> None:
    for count, most, what in (
        (metrics, MAX_METRICS, "metrics"),
        (params, MAX_PARAMS, "params"),
        (tags, MAX_TAGS, "tags"),
    ):
        if count > most:
            raise rules.invalid(
                f"A batch logging request can contain at most {most} {what}. Got {count} {what}. Please split up "
                f"{what} across multiple requests and try again."
            )
    total = metrics + params + tags
    if total > MAX_METRICS:
        raise rules.invalid(
            f"A batch logging request can contain at most {MAX_METRICS} metrics, params, and tags. Got {total}. "
            "Please split them up across multiple requests and try again."
        )


def _limited(values: Sequence[float | str]) -> Float64s:
    # Texts are read as float() does; those that come this far are what JSON has no number for.
    floats = np.fromiter(values, np.float64, len(values))
    # As MLflow keeps them; by StepStream's own client infinities stay what they are.
    return np.nan_to_num(floats, nan=np.nan) if np.isinf(floats).any() else floats
