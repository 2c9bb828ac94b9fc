"""MLflow's run endpoints."""

import time
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final
from uuid import UUID

import orjson

from stepstream_ingest import filters, pages
from stepstream_ingest.artifacts.manifest import Manifest, checked_directory
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.artifacts import children
from stepstream_ingest.mlflow.fields import Fields, experiment_number, missing
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.mlflow.values import spoken_value, view_type
from stepstream_ingest.retention.store import Retention
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import model_uuid
from stepstream_ingest.tracking.runs import Dataset, Run, Runs
from stepstream_schema.records import RUN_STATUSES

STATUS_NUMBERS: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
DEFAULT_PAGE: Final = 1000
MAX_PAGE: Final = 50_000
MAX_DATASET_EXPERIMENTS: Final = 20
MODEL_FIELDS: Final = frozenset({"artifact_path", "flavors", "utc_time_created", "run_id"})


class RunCalls:
    """Translates to the slices `tracking`, `retention` and `artifacts`."""

    def __init__(
        self,
        *,
        experiments: Experiments,
        runs: Runs,
        retention: Retention,
        manifest: Manifest,
    ) -> None:
        self._experiments = experiments
        self._runs = runs
        self._retention = retention
        self._manifest = manifest

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("runs/create", self.create)
        router.get("runs/get", self.get)
        router.post("runs/search", self.search)
        router.post("runs/update", self.update)
        router.post("runs/delete", self.delete)
        router.post("runs/restore", self.restore)
        router.post("runs/set-tag", self.set_tag)
        router.post("runs/delete-tag", self.delete_tag)
        router.post("runs/log-parameter", self.log_param)
        router.post("runs/log-inputs", self.log_inputs)
        router.post("runs/outputs", self.log_outputs)
        router.post("runs/log-model", self.log_model)
        router.get("artifacts/list", self.artifacts)
        router.post("experiments/search-datasets", self.search_datasets)

    async def create(self, said: Fields) -> Mapping[str, Any]:
        """A new run."""
        experiment = await self._experiments.active(experiment_number(said.required_text("experiment_id")))
        run_id = await self._runs.create(
            experiment.experiment_id,
            name=said.text("run_name", ""),
            user=said.text("user_id", ""),
            start_time_ms=said.integer("start_time", time.time_ns() // 1_000_000),
            tags=_first_tags(said),
        )
        return {"run": await self._run(run_id)}

    async def get(self, said: Fields) -> Mapping[str, Any]:
        """One run, be it deleted."""
        return {"run": await self._run(said.run_id())}

    async def update(self, said: Fields) -> Mapping[str, Any]:
        """Status, end, name."""
        run_id = said.run_id()
        await self._runs.update(
            run_id,
            status=_status(said),
            ends=said.has("end_time"),
            end_time_ms=said.integer("end_time", 0) or None,
            name=said.text("run_name", "") or None,
        )
        return {"run_info": (await self._run(run_id))["info"]}

    async def delete(self, said: Fields) -> Mapping[str, Any]:
        """Deleted, until the garbage is collected."""
        await self._retention.delete(said.run_id())
        return {}

    async def restore(self, said: Fields) -> Mapping[str, Any]:
        """Restored."""
        await self._retention.restore(said.run_id())
        return {}

    async def set_tag(self, said: Fields) -> Mapping[str, Any]:
        """A tag."""
        await self._runs.log(said.run_id(), [], {said.required_text("key"): said.text("value", "")})
        return {}

    async def delete_tag(self, said: Fields) -> Mapping[str, Any]:
        """No tag."""
        await self._runs.delete_tag(said.run_id(), said.required_text("key"))
        return {}

    async def log_param(self, said: Fields) -> Mapping[str, Any]:
        """A param."""
        await self._runs.log(said.run_id(), [(said.required_text("key"), said.text("value", ""))], {})
        return {}

    async def log_inputs(self, said: Fields) -> Mapping[str, Any]:
        """What the run has read."""
        run_id = said.run_id()
        datasets = [_dataset(one) for one in said.items("datasets")]
        models = [(model_uuid(one.required_text("model_id")), 0) for one in said.items("models")]
        found = await self._runs.get(run_id)
        if datasets:
            await self._runs.log_datasets(run_id, found.experiment_id, datasets)
        if models:
            await self._runs.log_models(run_id, "input", models)
        return {}

    async def log_outputs(self, said: Fields) -> Mapping[str, Any]:
        """What the run has made."""
        models = said.items("models")
        if not models:
            raise missing("models")
        steps = [(model_uuid(one.required_text("model_id")), one.integer("step", 0)) for one in models]
        await self._runs.log_models(said.run_id(), "output", steps)
        return {}

    async def log_model(self, said: Fields) -> Mapping[str, Any]:
        """A model, as MLflow 2 logs one."""
        try:
            model = orjson.loads(said.required_text("model_json"))
        except orjson.JSONDecodeError as error:
            raise rules.invalid(f"Malformed model info. model_json is not JSON: {error}") from error
        lacks = sorted(MODEL_FIELDS - model.keys()) if isinstance(model, dict) else sorted(MODEL_FIELDS)
        if lacks:
            raise rules.invalid(f"Model json is missing mandatory fields: {lacks}")
        await self._runs.log_model_history(said.run_id(), _noted(model))
        return {}

    async def search_datasets(self, said: Fields) -> Mapping[str, Any]:
        """Datasets that runs of some experiments have read."""
        numbers = [experiment_number(text) for text in said.texts("experiment_ids")]
        if not 1 <= len(numbers) <= MAX_DATASET_EXPERIMENTS:
            raise rules.invalid(f"experiment_ids must name 1 to {MAX_DATASET_EXPERIMENTS} experiments")
        found = await self._runs.datasets_of(numbers)
        summaries = [
            {"experiment_id": str(number), "name": name, "digest": digest} | ({"context": context} if context else {})
            for number, name, digest, context in found
        ]
        return {"dataset_summaries": summaries} if summaries else {}

    async def artifacts(self, said: Fields) -> Mapping[str, Any]:
        """What lies in a directory of the run's artifacts."""
        run_id = said.run_id()
        run = await self._run(run_id)
        path = checked_directory(said.text("path", ""))
        files = await children(self._manifest, run_id, path, full_paths=True)
        return {"root_uri": run["info"]["artifact_uri"]} | ({"files": files} if files else {})

    async def search(self, said: Fields) -> Mapping[str, Any]:
        """A page of the runs that fit a filter."""
        numbers = [experiment_number(text) for text in said.texts("experiment_ids")]
        limit = said.integer("max_results", DEFAULT_PAGE)
        if not 1 <= limit <= MAX_PAGE:
            raise rules.invalid(f"Invalid value {limit} for parameter 'max_results': it lies between 1 and {MAX_PAGE}")
        text, orders = said.text("filter", ""), [filters.parse_order(one) for one in said.texts("order_by")]
        stage = view_type(said, "run_view_type")
        question = (numbers, text, orders, stage)
        offset = pages.offset(said.text("page_token", ""), question)
        ids = await self._runs.search(numbers, filters.parse(text), orders, stage=stage, limit=limit + 1, offset=offset)
        # Written down one after the other: thousands of small dicts at once would each be made in memory that is cold.
        found = [orjson.Fragment(orjson.dumps(spoken(run))) async for run in self._runs.many(ids[:limit])]
        answer: dict[str, Any] = {"runs": found} if found else {}
        return answer | ({"next_page_token": pages.token(offset + limit, question)} if len(ids) > limit else {})

    async def _run(self, run_id: UUID) -> Mapping[str, Any]:
        return spoken(await self._runs.get(run_id))


def spoken(run: Run) -> dict[str, Any]:
    """A run as MLflow writes it."""
    answer: dict[str, Any] = {"info": _info(run), "data": _data(run)}
    inputs: dict[str, Any] = {}
    if run.datasets:
        inputs["dataset_inputs"] = [_dataset_input(one) for one in run.datasets]
    read = [{"model_id": f"m-{model.hex}"} for direction, model, _ in run.models if direction == "input"]
    if read:
        inputs["model_inputs"] = read
    made = [
        {"model_id": f"m-{model.hex}", "step": step} for direction, model, step in run.models if direction == "output"
    ]
    return answer | {"inputs": inputs} | ({"outputs": {"model_outputs": made}} if made else {})


def _first_tags(said: Fields) -> dict[str, str]:
    """The tags of a new run, which MLflow lets have any key, and each one value."""
    pairs = [(one.text("key", ""), one.text("value", "")) for one in said.items("tags")]
    if len(dict(pairs)) < len(pairs):
        raise rules.invalid("tags: a key stands there twice")
    return dict(pairs)


def _noted(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the history of a run's models keeps of one: how it is loaded, without its flavors' configurations."""
    flavors = {} if model["flavors"] is None else model["flavors"]
    if not isinstance(flavors, dict):
        raise rules.invalid("Malformed model info. flavors is not an object")
    kept = {name: model[name] for name in ("run_id", "artifact_path", "utc_time_created") if model[name] is not None}
    return kept | {
        "model_uuid": model.get("model_uuid"),
        "flavors": {
            name: {key: value for key, value in one.items() if key != "config"} if isinstance(one, dict) else one
            for name, one in flavors.items()
        },
    }


def _status(said: Fields) -> str | None:
    if not said.has("status"):
        return None
    try:
        number = said.integer("status")
        if number not in STATUS_NUMBERS:
            raise rules.invalid(f"Invalid value {number} for parameter 'status': it is one of {STATUS_NUMBERS}")
        return STATUS_NUMBERS[number]
    except ApiError:
        if not isinstance(said.raw("status"), str) or said.raw("status").strip().isdigit():
            raise
        # A name; one that is not known changes nothing, as with MLflow.
        name = said.text("status")
        return name if name in RUN_STATUSES or name == "SCHEDULED" else None


def _info(run: Run) -> dict[str, Any]:
    run_id = run.run_id.hex
    info = {
        "run_uuid": run_id,
        "run_id": run_id,
        "run_name": run.name,
        "experiment_id": str(run.experiment_id),
        "user_id": run.user_id,
        "status": run.status,
        "start_time": run.start_time_ms or 0,
        "artifact_uri": f"{run.artifact_location}/{run_id}/artifacts",
        "lifecycle_stage": run.lifecycle_stage,
    }
    return info | ({"end_time": run.end_time_ms} if run.end_time_ms is not None else {})


def _data(run: Run) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if run.metrics:
        # A page of a search has thousands of them: only what is not finite is worth a call.
        data["metrics"] = [
            {"key": key, "value": value if isfinite(value) else spoken_value(value), "timestamp": time_ms, "step": step}
            for key, value, step, time_ms in run.metrics
        ]
    for name, said in (("params", run.params), ("tags", run.tags)):
        if said:
            data[name] = [{"key": key, "value": value} for key, value in said.items()]
    return data


def _dataset(said: Fields) -> Dataset:
    tags = dict(said.pairs("tags"))
    inner = said.message("dataset")
    return Dataset(
        name=inner.required_text("name"),
        digest=inner.text("digest", ""),
        source_type=inner.text("source_type", ""),
        source=inner.text("source", ""),
        schema=inner.text("schema", ""),
        profile=inner.text("profile", ""),
        tags=tags,
    )


def _dataset_input(one: Dataset) -> dict[str, Any]:
    said = {"name": one.name, "digest": one.digest, "source_type": one.source_type, "source": one.source}
    said |= {name: value for name, value in (("schema", one.schema), ("profile", one.profile)) if value}
    return {"tags": [{"key": key, "value": value} for key, value in one.tags.items()], "dataset": said}
