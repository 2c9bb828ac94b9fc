"""Runs, as MlflowClient asks for them and writes to them: each call waits for the server."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from stepstream.entities import DatasetInput, FileInfo, Metric, PagedList, Param, Run, RunStatus, RunTag, ViewType
from stepstream.errors import QueryError
from stepstream.listed import listed
from stepstream.tracking import said
from stepstream.tracking.asking import Asking, ids, texts, view, whole
from stepstream.values import capture, read
from stepstream_schema import paths

PARENT_TAG: Final = "mlflow.parentRunId"
BATCH_METRICS: Final = 1000
BATCH_PAIRS: Final = 100


class Runs(Asking):
    """Makes, finds and changes runs. Raises QueryError; with nothing of the call stored when the server refuses it.

    Every call waits, also where `synchronous`, which MLflow's scripts may say, is False.
    """

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: Mapping[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """A run that is written to by this client's calls; `stepstream.start_run` is the way for a training."""
        body: dict[str, Any] = {
            "experiment_id": whole(experiment_id, "experiment_id"),
            "tags": texts(tags),
            "name": run_name or "",
        }
        if start_time is not None:
            body["start_time_ms"] = whole(start_time, "start_time")
        body["user"] = texts(tags).get("mlflow.user", "")
        return said.run(self._ask("POST", paths.RUNS, body))

    def get_run(self, run_id: str) -> Run:
        """One run, be it deleted."""
        return said.run(self._ask("GET", paths.run(run_id)))

    def get_parent_run(self, run_id: str) -> Run | None:
        """The run that it is nested in, or None."""
        parent = self.get_run(run_id).data.tags.get(PARENT_TAG)
        return self.get_run(parent) if parent else None

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] | str | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """A page of the runs of these experiments that fit a filter."""
        return self._page(
            paths.RUNS + "/search",
            "runs",
            said.run,
            experiment_ids=ids(experiment_ids),
            filter=filter_string,
            order_by=listed(order_by) or None,
            page_token=page_token,
            view=view(run_view_type),
            max_results=max_results,
        )

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """A new status, a new name."""
        self._ask("PATCH", paths.run(run_id), {"status": status, "name": name})

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """The run has ended; by default well, and now."""
        said_status = status or RunStatus.to_string(RunStatus.FINISHED)
        ended = time.time_ns() // 1_000_000 if end_time is None else whole(end_time, "end_time")
        self._ask("PATCH", paths.run(run_id), {"status": said_status, "end_time_ms": ended})

    def delete_run(self, run_id: str) -> None:
        """Deleted, until it is restored or the garbage is collected."""
        self._ask("DELETE", paths.run(run_id))

    def restore_run(self, run_id: str) -> None:
        """Restored."""
        self._ask("POST", paths.run(run_id) + "/restore")

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: Any,
        timestamp: int | None = None,
        step: int | None = None,
        synchronous: bool | None = None,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """One point, durable when this returns: of the run, and of a logged model that is named."""
        said = Metric(key, value, timestamp, step or 0, model_id, dataset_name, dataset_digest)  # type: ignore[arg-type]
        self._log(run_id, metrics=[_metric(said)])

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """A param; another value than the one it has is refused."""
        self._log(run_id, params={key: str(value)})
        return value

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        """A tag; the last value stays."""
        self._log(run_id, tags={key: str(value)})

    def delete_tag(self, run_id: str, key: str) -> None:
        """A tag goes."""
        self._ask("DELETE", paths.run(run_id) + "/tags", key=key)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        """Metrics, params and tags, at once; in more requests only where there are more than 1000 or 100 of a kind."""
        points = [_metric(one) for one in metrics]
        pairs = [(one.key, str(one.value)) for one in params]
        said_tags = [(one.key, str(one.value)) for one in tags]
        twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        if twice:
            message = f"Duplicate parameter keys have been submitted: {twice}; say each param once"
            raise QueryError(message, error_code="INVALID_PARAMETER_VALUE")
        groups = _groups(pairs, BATCH_PAIRS), _groups(said_tags, BATCH_PAIRS), _groups(points, BATCH_METRICS)
        for some_pairs, some_tags, some_points in zip_longest(*groups, fillvalue=()):
            self._log(run_id, params=dict(some_pairs), tags=dict(some_tags), metrics=list(some_points))

    def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] | None = None, models: Sequence[Any] | None = None
    ) -> None:
        """Datasets and logged models that the run has read."""
        body = {"datasets": [_dataset(one) for one in datasets or ()], "models": [one.model_id for one in models or ()]}
        self._ask("POST", paths.run(run_id) + "/inputs", body)

    def log_outputs(self, run_id: str, models: Sequence[Any]) -> None:
        """Logged models that the run has made."""
        made = [{"model_id": one.model_id, "step": whole(one.step, "step")} for one in models]
        self._ask("POST", paths.run(run_id) + "/outputs", {"models": made})

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every point of a metric, in the order of their times; of a run with ranks the lowest rank's."""
        self._ask("GET", paths.run(run_id))
        # Not before: nothing else here needs NumPy.
        from stepstream import history

        found: list[Metric] = []
        for part in history.parts(self._server, run_id, {"key": key}, None, None):
            columns = (part[name].tolist() for name in ("values", "times_ms", "steps"))
            found += [Metric(key, *point) for point in zip(*columns, strict=True)]
        return sorted(found, key=lambda one: (one.timestamp, one.step))

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """What lies in a directory of the run's artifacts."""
        self._ask("GET", paths.run(run_id))
        found = self._server.pages(paths.run_artifacts(run_id), "files", {"path": path or ""})
        return [FileInfo(one["path"], one["is_dir"], None if one["is_dir"] else one["size"]) for one in found]

    def _log(self, run_id: str, **batch: Any) -> None:
        self._ask("POST", paths.run(run_id) + "/log", batch)


def _metric(one: Metric) -> dict[str, Any]:
    number = read(capture(one.value))
    finite = number - number == 0
    spelt = number if finite else "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
    time_ms = None if one.timestamp is None else whole(one.timestamp, "timestamp")
    point = {"key": one.key, "value": spelt, "time_ms": time_ms, "step": whole(one.step or 0, "step")}
    # MLflow's own entities may be given, which before version 3 know of no models.
    model_id = getattr(one, "model_id", None)
    if model_id is None:
        return point
    on = {"dataset_name": one.dataset_name or "", "dataset_digest": one.dataset_digest or ""}
    return point | {"model_id": model_id} | on


def _dataset(one: DatasetInput) -> dict[str, Any]:
    fields = {name: value or "" for name, value in one.dataset}
    return fields | {"tags": {tag.key: str(tag.value) for tag in one.tags}}


def _groups(items: Sequence[Any], size: int) -> Iterable[list[Any]]:
    return (list(items[start : start + size]) for start in range(0, len(items), size))
