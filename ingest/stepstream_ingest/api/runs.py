"""Runs as JSON: /v1/runs."""

import time
from typing import Annotated, Literal
from uuid import UUID

import numpy as np
from msgspec import Meta, Struct

from stepstream_ingest.api import questions, values
from stepstream_ingest.api.experiments import TagKey, number_of
from stepstream_ingest.api.questions import Ordered, View
from stepstream_ingest.api.router import Router, run_uuid
from stepstream_ingest.api.values import Dataset, Number, Pairs, Run, RunWithWriters
from stepstream_ingest.filters import Order
from stepstream_ingest.keys import check_key
from stepstream_ingest.logs import Logs
from stepstream_ingest.openapi import Int64, Nothing, RunId, Text, TimeMs
from stepstream_ingest.retention.store import Retention
from stepstream_ingest.tracking import runs
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModels, ModelMetric, model_uuid
from stepstream_ingest.tracking.runs import Runs
from stepstream_ingest.write.said import Said, record_of
from stepstream_schema import limits, paths

MAX_METRICS = 1000
"""As many as MLflow takes in a batch; for more there are frames."""
MAX_PAIRS = 100
NEWEST: Order = Order("attribute", "start_time", False)
Name = Annotated[Text, Meta(max_length=limits.MAX_NAME_CHARS)]
Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
Ended = Literal["FINISHED", "FAILED", "KILLED"]


class NewRun(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A run without frames; one whose id is there already stays as it is."""

    experiment: Name = "Default"
    experiment_id: Int64 | None = None
    run_id: RunId | None = None
    name: Name = ""
    user: Name = ""
    start_time_ms: TimeMs | None = None
    tags: Pairs = {}


class RunChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; null stays as it is."""

    status: Status | None = None
    end_time_ms: TimeMs | None = None
    name: Name | None = None


class RunEnd(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a run has ended, and when; without a time, now."""

    status: Ended = "FINISHED"
    end_time_ms: TimeMs | None = None


class Newest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Of one experiment, or of all."""

    experiment_id: int | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class RunSearch(Ordered, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Runs that fit a filter; with neither ids nor names, of all active experiments."""

    experiment_ids: list[Int64] | None = None
    experiment_names: list[str] | None = None
    view: View = "active"
    max_results: Annotated[int, Meta(ge=1, le=50_000)] = 1000


class RunPage(Struct, kw_only=True, frozen=True):
    """A page of runs."""

    runs: list[Run]
    next_page_token: str | None = None


class RunStage(Struct, kw_only=True, frozen=True):
    """Whether a run is deleted."""

    run_id: str
    lifecycle_stage: Literal["active", "deleted"]


class Metric(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One point, which may also be of a logged model, and measured on a dataset."""

    key: str
    value: Number
    step: Int64 = 0
    time_ms: TimeMs | None = None
    model_id: str | None = None
    dataset_name: str = ""
    dataset_digest: str = ""


class Batch(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is logged together. A metric without a time is of now; equal points are one."""

    metrics: Annotated[list[Metric], Meta(max_length=MAX_METRICS)] = []
    params: Annotated[Pairs, Meta(max_length=MAX_PAIRS)] = {}
    tags: Annotated[Pairs, Meta(max_length=MAX_PAIRS)] = {}


class Inputs(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Datasets, and logged models by their ids, that the run has read."""

    datasets: Annotated[list[Dataset], Meta(max_length=1000)] = []
    models: Annotated[list[str], Meta(max_length=1000)] = []


class Output(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A logged model, and the step at which it was made."""

    model_id: str
    step: Int64 = 0


class Outputs(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Logged models that the run has made."""

    models: Annotated[list[Output], Meta(min_length=1, max_length=1000)]


class RunCalls:
    """Over the slices `tracking`, `write` and `retention`."""

    def __init__(
        self, *, experiments: Experiments, runs: Runs, models: LoggedModels, logs: Logs, retention: Retention
    ) -> None:
        self._experiments = experiments
        self._runs = runs
        self._models = models
        self._logs = logs
        self._retention = retention

    def add_to(self, router: Router) -> None:
        """Register the calls."""
        one = paths.run("{run_id}")
        router.add("POST", paths.RUNS, self.create)
        router.add("GET", paths.RUNS, self.newest)
        router.add("POST", paths.RUNS + "/search", self.search)
        router.add("GET", one, self.get)
        router.add("PATCH", one, self.change)
        router.add("DELETE", one, self.delete)
        router.add("POST", one + "/restore", self.restore)
        router.add("POST", one + "/finish", self.finish)
        router.add("POST", one + "/log", self.log)
        router.add("DELETE", one + "/tags", self.delete_tag)
        router.add("POST", one + "/inputs", self.log_inputs)
        router.add("POST", one + "/outputs", self.log_outputs)

    async def create(self, body: NewRun) -> Run:
        """Make a run, in an experiment by its number, or by its name, which is made if there is none."""
        for key in body.tags:
            check_key(key, "tag")
        run_id = await self._runs.create(
            await number_of(self._experiments, body.experiment, body.experiment_id),
            name=body.name,
            user=body.user,
            start_time_ms=_now_ms() if body.start_time_ms is None else body.start_time_ms,
            tags=body.tags,
            run_id=run_uuid(body.run_id) if body.run_id is not None else None,
        )
        return values.run(await self._runs.get(run_id))

    async def newest(self, query: Newest) -> RunPage:
        """The newest runs that are not deleted."""
        numbers = [query.experiment_id] if query.experiment_id is not None else await self._experiments.all_active()
        ids = await self._runs.search(numbers, [], [NEWEST], stage="active", limit=query.limit, offset=0)
        return RunPage(runs=[values.run(one) async for one in self._runs.many(ids)])

    async def search(self, body: RunSearch) -> RunPage:
        """A page of the runs that fit a filter."""
        orders = body.orders()
        page = questions.page(body, orders, body.max_results, body.experiment_ids, body.experiment_names, body.view)
        ids, token = page.cut(
            await self._runs.search(
                await self._numbers(body),
                page.clauses,
                orders,
                stage=body.view,
                limit=page.limit + 1,
                offset=page.offset,
            )
        )
        return RunPage(runs=[values.run(one) async for one in self._runs.many(ids)], next_page_token=token)

    async def get(self, run_id: UUID) -> RunWithWriters:
        """One run, be it deleted, with the processes that write it."""
        return values.run_with_writers(await self._runs.get(run_id), await self._runs.job(run_id))

    async def change(self, run_id: UUID, body: RunChange) -> Run:
        """Status, end, name."""
        await self._runs.update(
            run_id,
            status=body.status,
            ends=body.end_time_ms is not None,
            end_time_ms=body.end_time_ms,
            name=body.name,
        )
        return values.run(await self._runs.get(run_id))

    async def finish(self, run_id: UUID, body: RunEnd) -> Run:
        """End a run, unless something later has been said of its status."""
        await self._runs.finish(run_id, body.status, body.end_time_ms)
        return values.run(await self._runs.get(run_id))

    async def delete(self, run_id: UUID) -> RunStage:
        """Delete a run; it can be restored until the garbage is collected."""
        return RunStage(**await self._retention.delete(run_id))

    async def restore(self, run_id: UUID) -> RunStage:
        """Restore a deleted run."""
        return RunStage(**await self._retention.restore(run_id))

    async def log(self, run_id: UUID, body: Batch) -> Nothing:
        """Log metrics, params and tags: durable when it is answered. A param that has another value is refused."""
        points = _points(body.metrics)
        of_models = _of_models(body.metrics, points)
        # What is refused leaves nothing behind: models are looked for first, and written to last.
        if of_models:
            await self._models.check({one.model_id for one in of_models})
        await self._logs.log(run_id, record_of(points), list(body.params.items()), body.tags)
        if of_models:
            await self._models.log_metrics(run_id, of_models)
        return Nothing()

    async def delete_tag(self, run_id: UUID, query: TagKey) -> Nothing:
        """A tag goes."""
        await self._runs.delete_tag(run_id, query.key)
        return Nothing()

    async def log_inputs(self, run_id: UUID, body: Inputs) -> Nothing:
        """What the run has read."""
        found = await self._runs.get(run_id)
        if body.datasets:
            await self._runs.log_datasets(run_id, found.experiment_id, [_dataset(one) for one in body.datasets])
        if body.models:
            used = [((await self._models.get(model_uuid(text))).model_id, 0) for text in body.models]
            await self._runs.log_models(run_id, "input", used)
        return Nothing()

    async def log_outputs(self, run_id: UUID, body: Outputs) -> Nothing:
        """What the run has made."""
        made = [((await self._models.get(model_uuid(one.model_id))).model_id, one.step) for one in body.models]
        await self._runs.log_models(run_id, "output", made)
        return Nothing()

    async def _numbers(self, said: RunSearch) -> list[int]:
        if said.experiment_ids is None and said.experiment_names is None:
            return await self._experiments.all_active()
        named = [(await self._experiments.by_name(name)).experiment_id for name in said.experiment_names or ()]
        return sorted({*(said.experiment_ids or ()), *named})


def _points(metrics: list[Metric]) -> Said:
    now = _now_ms()
    for one in metrics:
        check_key(one.key, "metric")
    return Said(
        keys=[one.key for one in metrics],
        steps=[one.step for one in metrics],
        times_ms=[now if one.time_ms is None else one.time_ms for one in metrics],
        values=np.array([float(one.value) for one in metrics], np.float64),
    )


def _of_models(metrics: list[Metric], points: Said) -> list[ModelMetric]:
    return [
        ModelMetric(
            model_id=model_uuid(one.model_id),
            key=one.key,
            step=one.step,
            time_ms=points.times_ms[place],
            value=float(one.value),
            dataset_name=one.dataset_name,
            dataset_digest=one.dataset_digest,
        )
        for place, one in enumerate(metrics)
        if one.model_id is not None
    ]


def _dataset(one: Dataset) -> runs.Dataset:
    return runs.Dataset(
        name=one.name,
        digest=one.digest,
        source_type=one.source_type,
        source=one.source,
        schema=one.schema,
        profile=one.profile,
        tags=one.tags,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
