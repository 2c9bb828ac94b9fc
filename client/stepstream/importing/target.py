"""A StepStream server that is moved into: everything is written so that writing it again changes nothing."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from stepstream.errors import QueryError
from stepstream.importing.registry import RegistryTarget
from stepstream.importing.values import (
    Point,
    SourceExperiment,
    SourceLoggedModel,
    SourceModel,
    SourceModelMetric,
    SourceRun,
)
from stepstream.query import Server
from stepstream_schema import batch, limits, paths
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Start

API: Final = "/api/2.0/mlflow/"
IMPORTED_TAG: Final = "stepstream.imported"
"""What the source's run looked like when all of it had been taken."""
SOURCE_TAG: Final = "stepstream.imported.artifact_uri"
BATCH: Final = 1000
"""Points of one request, as many as MLflow's protocol allows."""
BODY_BYTES: Final = 2**20
PAIRS: Final = 100
AT_ONCE: Final = 4


class Target:
    """Writes by frames where a run is born, and by MLflow's protocol, whose equal points are one, for all else."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._registry = RegistryTarget(server)
        self._pool = ThreadPoolExecutor(AT_ONCE, "stepstream-import")

    def experiment(self, one: SourceExperiment) -> tuple[str, bool]:
        """Its number here and whether it is deleted; made, with its tags, if there is none of that name."""
        try:
            found = self._ask("experiments/get-by-name", experiment_name=one.name)["experiment"]
        except QueryError as error:
            if error.status != 404:
                raise
            tags = [{"key": key, "value": value} for key, value in one.tags.items()]
            return str(self._say("experiments/create", name=one.name, tags=tags)["experiment_id"]), False
        return str(found["experiment_id"]), found["lifecycle_stage"] == "deleted"

    def delete_experiment(self, number: str) -> None:
        """As it is in the source."""
        self._say("experiments/delete", experiment_id=number)

    def fingerprint(self, run_id: str) -> str | None:
        """Of the run when it was taken; None for one that is not here, '' for one that is not complete."""
        try:
            run = self._ask("runs/get", run_id=run_id)["run"]
        except QueryError as error:
            if error.status == 404:
                return None
            raise
        tags = {str(tag["key"]): str(tag["value"]) for tag in run["data"].get("tags", [])}
        return tags.get(IMPORTED_TAG, "")

    def begin(self, run: SourceRun, experiment: str) -> None:
        """The run under its own id, by a frame that is the same every time."""
        digest = hashlib.sha256(b"stepstream import " + run.run_id.encode()).digest()
        start = Start(experiment=experiment, name=run.name, user=run.user, time_ms=run.start_time_ms)
        frame = wire.Frame(
            run_id=run.run_id,
            writer=int.from_bytes(digest[:8], "big") % limits.FIRST_SERVED_WRITER or 1,
            seq=1,
            rank=None,
            attempt=Attempt(),
            records=(start,),
        )
        said = json.loads(self._server.send("POST", paths.FRAMES, batch.pack([wire.encode(frame)]), paths.MSGPACK))
        for refused in said["refused"]:
            raise QueryError(f"run {run.run_id} was refused: {refused['message']}", status=400)
        # It may have been taken and deleted before, and have gone on in the source since.
        self._say("runs/restore", run_id=run.run_id)

    def points(self, run_id: str, points: Iterable[Point], sent: Callable[[int], None]) -> None:
        """Store histories, and tell how many points were sent, again and again."""
        source = iter(points)
        while group := [list(itertools.islice(source, BATCH)) for _ in range(AT_ONCE)]:
            bodies = [body for body in group if body]
            if not bodies:
                return
            # Four requests at a time; the first that fails is raised.
            list(self._pool.map(lambda body: self._log(run_id, body), bodies))
            sent(sum(map(len, bodies)))

    def settle(self, run: SourceRun, fingerprint: str, more_tags: Mapping[str, str]) -> list[str]:
        """Params, tags, datasets, status; and last that the run is complete. Which params stay as they were taken."""
        stay = self._stay(run)
        for params in _groups({key: value for key, value in run.params.items() if key not in stay}):
            self._say("runs/log-batch", run_id=run.run_id, params=params)
        for tags in _groups({**run.tags, **more_tags}):
            self._say("runs/log-batch", run_id=run.run_id, tags=tags)
        for datasets in _bodies(run.datasets):
            self._say("runs/log-inputs", run_id=run.run_id, datasets=datasets)
        if run.model_inputs:
            self._say("runs/log-inputs", run_id=run.run_id, models=[{"model_id": one} for one in run.model_inputs])
        if run.model_outputs:
            made = [{"model_id": one, "step": step} for one, step in run.model_outputs]
            self._say("runs/outputs", run_id=run.run_id, models=made)
        ends = {"end_time": run.end_time_ms} if run.end_time_ms is not None else {}
        self._say("runs/update", run_id=run.run_id, status=run.status, **ends)
        self._say("runs/set-tag", run_id=run.run_id, key=IMPORTED_TAG, value=fingerprint)
        if run.deleted:
            self._say("runs/delete", run_id=run.run_id)
        return [f"param {key} of run {run.run_id} has changed, and stays {stay[key]!r:.80}" for key in sorted(stay)]

    def begin_model(self, one: SourceLoggedModel, experiment: str) -> str:
        """A logged model under its own id, made if it is not here; its fingerprint, '' for one that is not complete."""
        body = {
            "experiment_id": int(experiment),
            "model_id": one.model_id,
            "name": one.name,
            "model_type": one.model_type,
            "params": dict(one.params),
            **({"source_run_id": one.source_run_id} if one.source_run_id else {}),
        }
        tags = self._server.ask("POST", paths.LOGGED_MODELS, body)["tags"]
        return str(tags.get(IMPORTED_TAG, ""))

    def measured(self, run_id: str, metrics: Sequence[SourceModelMetric], model_id: str) -> None:
        """What a run has measured of a logged model."""
        said = [
            _spelt(one.point)
            | {"model_id": model_id, "dataset_name": one.dataset_name, "dataset_digest": one.dataset_digest}
            for one in metrics
        ]
        for start in range(0, len(said), BATCH):
            self._say("runs/log-batch", run_id=run_id, metrics=said[start : start + BATCH])

    def model_file(self, one: SourceLoggedModel, experiment: str, path: str, local: Path) -> None:
        """Store a file of a logged model."""
        place = quote(f"{experiment}/models/{one.model_id}/artifacts/{path}")
        self._server.send_file("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}", local)

    def settle_model(self, one: SourceLoggedModel, fingerprint: str, more_tags: Mapping[str, str]) -> None:
        """Status and tags; and last that the model is complete."""
        place = paths.logged_model(one.model_id)
        if one.status in ("READY", "UPLOAD_FAILED"):
            self._server.ask("PATCH", place, {"status": one.status})
        tags = {**one.tags, **more_tags, IMPORTED_TAG: fingerprint}
        self._server.ask("POST", place + "/tags", {"tags": tags})

    def model(self, one: SourceModel, *, copied: bool) -> list[str]:
        """A registered model with its versions under their numbers; what could not be taken, and why."""
        return self._registry.take(one, copied=copied)

    def _stay(self, run: SourceRun) -> dict[str, str]:
        """Params that are here otherwise."""
        data = self._ask("runs/get", run_id=run.run_id)["run"]["data"]
        here = {str(param["key"]): str(param["value"]) for param in data.get("params", [])}
        kept = {key: value[: limits.MAX_PARAM_VALUE_CHARS] for key, value in run.params.items()}
        return {key: value for key, value in here.items() if kept.get(key, value) != value}

    def _log(self, run_id: str, points: Sequence[Point]) -> None:
        if any(math.isinf(value) for _, value, _, _ in points):
            # MLflow's protocol would make the largest number of an infinity; equal points are one by either way.
            self._server.post(f"{paths.run(run_id)}/log", {"metrics": list(map(_exact, points))})
        else:
            self._say("runs/log-batch", run_id=run_id, metrics=list(map(_spelt, points)))

    def _say(self, path: str, **said: Any) -> dict[str, Any]:
        return self._server.post(API + path, said)

    def _ask(self, path: str, **asked: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._server.get(API + path, **asked))
        return answer


def _spelt(point: Point) -> dict[str, Any]:
    key, value, time_ms, step = point
    return {"key": key, "value": _number(value), "timestamp": time_ms, "step": step}


def _exact(point: Point) -> dict[str, Any]:
    key, value, time_ms, step = point
    return {"key": key, "value": _number(value), "time_ms": time_ms, "step": step}


def _number(value: float) -> float | str:
    """What is not finite has no number in JSON."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _groups(said: Mapping[str, str]) -> Iterable[list[dict[str, str]]]:
    pairs = [{"key": key, "value": value} for key, value in sorted(said.items())]
    return (pairs[start : start + PAIRS] for start in range(0, len(pairs), PAIRS))


def _bodies(datasets: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """As many at once as a body may hold: their schemas are large."""
    body: list[Mapping[str, Any]] = []
    size = 0
    for one in datasets:
        more = len(json.dumps(one))
        if body and size + more > BODY_BYTES:
            yield body
            body, size = [], 0
        body.append(one)
        size += more
    if body:
        yield body
