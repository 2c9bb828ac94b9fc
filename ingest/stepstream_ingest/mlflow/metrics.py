"""MLflow's endpoints that log and read metrics."""

import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import numpy as np

from stepstream_ingest import pages
from stepstream_ingest.errors import ApiError
from stepstream_ingest.keys import check_key
from stepstream_ingest.mlflow.fields import Fields, missing, run_uuid
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.mlflow.values import spoken_value
from stepstream_ingest.read.history import History, Wanted, Window
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.models import LoggedModels, ModelMetric, model_uuid
from stepstream_ingest.tracking.runs import Runs
from stepstream_ingest.write.served import Said, Served
from stepstream_schema.columns import Float64s, Int64s
from stepstream_schema.points import Points

MAX_METRICS: Final = 1000
MAX_PARAMS: Final = 100
MAX_TAGS: Final = 100
MAX_RUNS: Final = 100
MAX_SAMPLES: Final = 2500
DEFAULT_SAMPLES: Final = 320
PAGED_S: Final = 10.0
PLAIN: Final[Sequence[set[type]]] = ({str}, {float, int}, {int}, {int})
"""Types of a key, a value, a time and a step that need no reading."""


class MetricCalls:
    """Translates to the slices `write`, `tracking` and `read`."""

    def __init__(self, *, served: Served, runs: Runs, models: LoggedModels, history: History) -> None:
        self._served = served
        self._runs = runs
        self._models = models
        self._history = history
        self._paged = Paged()

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("runs/log-metric", self.log_metric)
        router.post("runs/log-batch", self.log_batch)
        router.get("metrics/get-history", self.get_history)
        router.get("metrics/get-history-bulk", self.bulk)
        router.get("metrics/get-history-bulk-interval", self.sampled)

    async def log_metric(self, said: Fields) -> Mapping[str, Any]:
        """One point."""
        run_id, points = said.run_id(), one_by_one([said])
        of_models = _of_models([said], points)
        await self._runs.check_writable(run_id)
        await self._log(run_id, points, of_models)
        return {}

    async def log_batch(self, said: Fields) -> Mapping[str, Any]:
        """Metrics, params and tags: checked together, before anything is stored."""
        run_id = said.run_id()
        metrics, params, tags = said.sequence("metrics"), said.pairs("params"), said.pairs("tags")
        _check_sizes(len(metrics), len(params), len(tags))
        points = at_once(metrics) or one_by_one(said.items("metrics"))
        # Nearly no batch has any; asking each of a thousand metrics in full would cost more than reading it.
        of_models = _of_models(said.items("metrics"), points) if any("model_id" in one for one in metrics) else []
        twice = sorted({key for key, _ in params if sum(key == other for other, _ in params) > 1})
        if twice:
            raise rules.invalid(
                f"Duplicate parameter keys have been submitted: {twice}. Please ensure the request "
                "contains only one param value per param key."
            )
        if params or tags:
            await self._runs.log(run_id, params, dict(tags))
        else:
            await self._runs.check_writable(run_id)
        await self._log(run_id, points, of_models)
        return {}

    async def _log(self, run_id: UUID, points: Said, of_models: Sequence[ModelMetric]) -> None:
        if of_models:
            await self._models.log_metrics(run_id, of_models)
        await self._served.log(run_id, points)

    async def get_history(self, said: Fields) -> Mapping[str, Any]:
        """Every point of a metric, or a page of them, in the order of their times."""
        run_id, key = said.run_id(), said.required_text("metric_key")
        limit = said.integer("max_results", 0)
        if said.has("max_results") and limit < 1:
            raise rules.invalid(f"Invalid value {limit} for parameter 'max_results' supplied: it must be at least 1")
        offset = pages.offset(said.text("page_token", ""), (run_id, key))
        points = self._paged.get(run_id, key) if offset else None
        if points is None:
            points = by_time(await self._points(run_id, key, Window()))
        end = offset + limit if limit else len(points)
        answer: dict[str, Any] = {}
        if offset < len(points):
            answer["metrics"] = _spoken(key, points.take(slice(offset, end)))
        if end < len(points):
            self._paged.keep(run_id, key, points)
            answer["next_page_token"] = pages.token(end, (run_id, key))
        return answer

    async def bulk(self, said: Fields) -> Mapping[str, Any]:
        """Points of one metric in several runs, as MLflow's page asks for them."""
        run_ids, key = _run_ids(said), said.required_text("metric_key")
        most = min(said.integer("max_results", 25_000), 25_000)
        found: list[dict[str, Any]] = []
        for run_id in run_ids:
            points = by_time(await self._points(run_id, key, Window()))
            found += [one | {"run_id": run_id.hex} for one in _spoken(key, points)]
        return {"metrics": found[:most]}

    async def sampled(self, said: Fields) -> Mapping[str, Any]:
        """Some points of one metric in several runs: the first, the last, and each bucket's extremes."""
        run_ids, key = _run_ids(said), said.required_text("metric_key")
        most = said.integer("max_results", DEFAULT_SAMPLES)
        if not 1 <= most <= MAX_SAMPLES:
            raise rules.invalid(f"max_results must be between 1 and {MAX_SAMPLES}, not {most}")
        if said.has("start_step") != said.has("end_step"):
            raise rules.invalid("If either start step or end step are specified, both must be specified.")
        window = Window()
        if said.has("start_step"):
            start, end = said.integer("start_step"), said.integer("end_step")
            if start > end:
                raise rules.invalid(
                    f"end_step must be greater than start_step. Found start_step={start} and end_step={end}."
                )
            window = Window(start=start, end=end)
        found: list[dict[str, Any]] = []
        for run_id in run_ids:
            points = thinned(await self._points(run_id, key, window), most)
            found += [one | {"run_id": run_id.hex} for one in _spoken(key, points)]
        return {"metrics": found} if found else {}

    async def _points(self, run_id: UUID, key: str, window: Window) -> Points:
        return await self._history.points(Wanted(run_id=run_id, key=key, rank=None, attempt=None), window)


class Paged:
    """The series whose pages are being asked for: each page would else cost the reading of all.

    One series, of at most as many points as one question may read, for a short while: whoever asks from the beginning
    sees what is there now.
    """

    def __init__(self) -> None:
        self._kept: tuple[UUID, str, Points, float] | None = None

    def keep(self, run_id: UUID, key: str, points: Points) -> None:
        """Its next page may be asked for soon."""
        self._kept = (run_id, key, points, time.monotonic())

    def get(self, run_id: UUID, key: str) -> Points | None:
        """The series, if it is the one that was kept."""
        if self._kept is None or time.monotonic() - self._kept[3] > PAGED_S:
            self._kept = None
        return self._kept[2] if self._kept is not None and self._kept[:2] == (run_id, key) else None


def by_time(points: Points) -> Points:
    """In MLflow's order: by time, then step, then value."""
    return points.take(np.lexsort((points.values, points.steps, points.times_ms)))


def thinned(points: Points, most: int) -> Points:
    """At most so many points, in order: the first, the last, and of each bucket between the smallest and largest.

    MLflow takes every n-th, which loses a spike of one step.
    """
    count = len(points)
    if count <= most:
        return points
    if most < 4:
        return points.take(np.unique(np.linspace(0, count - 1, most).astype(np.intp)))
    edges = np.linspace(1, count - 1, (most - 2) // 2 + 1).astype(np.intp)
    kept = {0, count - 1}
    for start, end in itertools.pairwise(edges):
        if start < end:
            values = points.values[start:end]
            kept.add(int(start + np.argmin(np.where(np.isnan(values), np.inf, values))))
            kept.add(int(start + np.argmax(np.where(np.isnan(values), -np.inf, values))))
    return points.take(np.array(sorted(kept)))


def at_once(metrics: Sequence[Any]) -> Said | None:
    """The metrics of a batch as their client writes them, a column at a time; None for what needs a closer look."""
    try:
        keys = [one["key"] for one in metrics]
        columns = [[one[name] for one in metrics] for name in ("value", "timestamp", "step")]
    except (KeyError, TypeError):
        return None
    kinds = [set(map(type, column)) for column in (keys, *columns)]
    if not metrics or not all(keys) or any(kind - allowed for kind, allowed in zip(kinds, PLAIN, strict=True)):
        return None
    for key in set(keys):
        check_key(key, "metric")
    values, times_ms, steps = columns
    try:
        said = Said(keys=keys, steps=_int64s(steps), times_ms=_int64s(times_ms), values=_limited(values))
    except OverflowError:
        return None
    return said if int(said.times_ms.min()) >= 0 else None


def one_by_one(metrics: Sequence[Fields]) -> Said:
    """The same for numbers that come as texts, steps that are left out, and what is wrong. Raises ApiError."""
    keys = [check_key(one.required_text("key"), "metric") for one in metrics]
    values = [one.number("value") for one in metrics]
    times_ms = [one.integer("timestamp") for one in metrics]
    for key, time_ms in zip(keys, times_ms, strict=True):
        if time_ms < 0:
            raise rules.invalid(
                f"Got invalid timestamp {time_ms} for metric '{key}': it is milliseconds since the epoch"
            )
    steps = [one.integer("step", 0) for one in metrics]
    return Said(keys=keys, steps=_int64s(steps), times_ms=_int64s(times_ms), values=_limited(values))


def _of_models(metrics: Sequence[Fields], points: Said) -> list[ModelMetric]:
    """Those that belong to a logged model."""
    return [
        ModelMetric(
            model_id=model_uuid(one.text("model_id")),
            key=points.keys[place],
            step=int(points.steps[place]),
            time_ms=int(points.times_ms[place]),
            value=float(points.values[place]),
            dataset_name=one.text("dataset_name", ""),
            dataset_digest=one.text("dataset_digest", ""),
        )
        for place, one in enumerate(metrics)
        if one.text("model_id", "")
    ]


def _int64s(numbers: Sequence[int]) -> Int64s:
    return np.array(numbers, np.int64)


def _limited(values: Sequence[float]) -> Float64s:
    # As MLflow keeps them; by StepStream's own client infinities stay what they are.
    return np.clip(np.array(values, np.float64), -sys.float_info.max, sys.float_info.max)


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


def _spoken(key: str, points: Points) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": spoken_value(value), "timestamp": time_ms, "step": step}
        for value, time_ms, step in zip(
            points.values.tolist(), points.times_ms.tolist(), points.steps.tolist(), strict=True
        )
    ]


def _run_ids(said: Fields) -> Sequence[UUID]:
    texts = said.texts("run_ids") or said.one_or_more("run_id")
    if not texts:
        raise missing("run_ids")
    if len(texts) > MAX_RUNS:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"at most {MAX_RUNS} runs can be asked for, not {len(texts)}")
    return [run_uuid(text) for text in texts]
