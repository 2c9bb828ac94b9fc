"""MLflow's endpoints that log and read metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from stepstream_ingest import pages
from stepstream_ingest.errors import ApiError
from stepstream_ingest.logs import Logs
from stepstream_ingest.mlflow import batches, sampling
from stepstream_ingest.mlflow.fields import Fields, missing, possible_run
from stepstream_ingest.mlflow.paging import Paging, Place
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.mlflow.values import spoken_value
from stepstream_ingest.read.history import History, Wanted, Window
from stepstream_ingest.read.threads import aside
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.models import LoggedModels, ModelMetric
from stepstream_ingest.write.said import record_of
from stepstream_schema.points import Points
from stepstream_schema.records import Metrics

MAX_RUNS: Final = 100
MAX_SAMPLES: Final = 2500
MAX_BULK: Final = 25_000
PIECE: Final = 2**13
"""Points that are written at once: while they are, a few milliseconds, no other thread runs."""


class MetricCalls:
    """Translates to the slices `write`, `tracking` and `read`."""

    def __init__(self, *, logs: Logs, models: LoggedModels, history: History) -> None:
        self._logs = logs
        self._models = models
        self._history = history
        self._paging = Paging(history)

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("runs/log-metric", self.log_metric)
        router.post_body("runs/log-batch", self.log_batch)
        router.get("metrics/get-history", self.get_history)
        router.get("metrics/get-history-bulk", self.bulk)
        router.get("metrics/get-history-bulk-interval", self.sampled)

    async def log_metric(self, said: Fields) -> Mapping[str, Any]:
        """One point."""
        run_id, points = said.run_id(), batches.one_by_one([said])
        await self._log(run_id, record_of(points), batches.of_models([said], points))
        return {}

    async def log_batch(self, body: bytes) -> Mapping[str, Any]:
        """Metrics, params and tags: checked together, before anything is stored."""
        said = batches.read(body)
        # What it was read from goes now, while it is in the processor's caches, and not after the commit.
        del body
        await self._log(said.run_id, said.points, said.of_models, said.params, said.tags)
        return {}

    async def _log(
        self,
        run_id: UUID,
        points: Metrics | None,
        of_models: Sequence[ModelMetric],
        params: Sequence[tuple[str, str]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        # What is refused leaves nothing behind: models are looked for first, and written to last.
        if of_models:
            await self._models.check({one.model_id for one in of_models})
        await self._logs.log(run_id, points, params, tags)
        if of_models:
            await self._models.log_metrics(run_id, of_models)

    async def get_history(self, said: Fields) -> Mapping[str, Any]:
        """Every point of a metric, or a page of them, in the order of their times."""
        run_id, key = possible_run(said.run_text()), said.required_text("metric_key")
        limit = said.integer("max_results", 0)
        if said.has("max_results") and limit < 1:
            raise rules.invalid(f"Invalid value {limit} for parameter 'max_results' supplied: it must be at least 1")
        skip, step = pages.place(said.text("page_token", ""), (run_id, key))
        if run_id is None:
            return {}
        points, following = await self._paging.page(_wanted(run_id, key), Place(step, skip), limit)
        answer: dict[str, Any] = {"metrics": _array([await aside(_spoken, key, points)])} if len(points) else {}
        if following is not None:
            answer["next_page_token"] = pages.token(following.skip, (run_id, key), following.step)
        return answer

    async def bulk(self, said: Fields) -> Mapping[str, Any]:
        """The first points of one metric in several runs, as MLflow's page asks for them."""
        run_ids, key = _run_ids(said), said.required_text("metric_key")
        most = said.integer("max_results", MAX_BULK)
        if most < 0:
            raise rules.invalid(f"Invalid value {most} for parameter 'max_results' supplied: it counts points")
        found: list[bytes] = []
        left = min(most, MAX_BULK)
        for run_id in sorted(run_ids):
            if left < 1:
                break
            points, _ = await self._paging.page(_wanted(run_id, key), Place(), left)
            left -= len(points)
            found.append(await aside(_spoken, key, points, run_id))
        return {"metrics": _array(found)}

    async def sampled(self, said: Fields) -> Mapping[str, Any]:
        """Some points of one metric in several runs: the first, the last, and each bucket's extremes."""
        run_ids, key = _run_ids(said), said.required_text("metric_key")
        most = said.integer("max_results", MAX_SAMPLES)
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
        found: list[bytes] = []
        for run_id in run_ids:
            points = await sampling.sample(self._history, _wanted(run_id, key), window, most)
            found.append(await aside(_spoken, key, points, run_id))
        return {"metrics": _array(found)} if any(found) else {}


def _wanted(run_id: UUID, key: str) -> Wanted:
    return Wanted(run_id=run_id, key=key)


def _spoken(key: str, points: Points, run_id: UUID | None = None) -> bytes:
    """The items of a JSON array, without its brackets: as text a point takes a third of what it does as an object."""
    of = {} if run_id is None else {"run_id": run_id.hex}
    pieces = (points.take(slice(start, start + PIECE)) for start in range(0, len(points), PIECE))
    return b",".join(
        orjson.dumps(
            [
                {"key": key, "value": spoken_value(value), "timestamp": time_ms, "step": step} | of
                for value, time_ms, step in zip(
                    piece.values.tolist(), piece.times_ms.tolist(), piece.steps.tolist(), strict=True
                )
            ]
        )[1:-1]
        for piece in pieces
    )


def _array(items: Sequence[bytes]) -> orjson.Fragment:
    return orjson.Fragment(b"[" + b",".join(filter(None, items)) + b"]")


def _run_ids(said: Fields) -> Sequence[UUID]:
    texts = said.texts("run_ids") or said.one_or_more("run_id")
    if not texts:
        raise missing("run_ids")
    if len(texts) > MAX_RUNS:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"at most {MAX_RUNS} runs can be asked for, not {len(texts)}")
    return [run_id for text in texts if (run_id := possible_run(text)) is not None]
