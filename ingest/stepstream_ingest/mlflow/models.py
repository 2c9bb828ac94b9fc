"""MLflow 3's endpoints for logged models."""

from collections.abc import Mapping
from typing import Any, Final

from stepstream_ingest import filters, pages
from stepstream_ingest.artifacts.manifest import Manifest, checked_directory
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.artifacts import children
from stepstream_ingest.mlflow.fields import Fields, experiment_number, missing, run_uuid
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.mlflow.values import spoken_value
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.model_search import ModelOrder, OnDataset
from stepstream_ingest.tracking.models import LoggedModel, LoggedModels, ModelMetric, model_uuid

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 5000
STATUSES: Final = {
    0: "LOGGED_MODEL_STATUS_UNSPECIFIED",
    1: "LOGGED_MODEL_PENDING",
    2: "LOGGED_MODEL_READY",
    3: "LOGGED_MODEL_UPLOAD_FAILED",
}


class ModelCalls:
    """Translates to the slice `tracking`."""

    def __init__(self, experiments: Experiments, models: LoggedModels, manifest: Manifest) -> None:
        self._experiments = experiments
        self._models = models
        self._manifest = manifest

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("logged-models", self.create)
        router.post("logged-models/search", self.search)
        router.get("logged-models/{model_id}", self.get)
        router.add("PATCH", "logged-models/{model_id}", self.finalize)
        router.add("DELETE", "logged-models/{model_id}", self.delete)
        router.add("PATCH", "logged-models/{model_id}/tags", self.set_tags)
        router.add("DELETE", "logged-models/{model_id}/tags/{tag_key}", self.delete_tag)
        router.post("logged-models/{model_id}/params", self.log_params)
        router.get("logged-models/{model_id}/artifacts/directories", self.artifacts)

    async def create(self, said: Fields) -> Mapping[str, Any]:
        """A model that is about to be logged."""
        experiment = await self._experiments.active(experiment_number(said.required_text("experiment_id")))
        source = said.text("source_run_id", "")
        model_id = await self._models.create(
            experiment.experiment_id,
            name=said.text("name", ""),
            model_type=said.text("model_type", ""),
            source_run_id=run_uuid(source) if source else None,
            params=_each_once(said, "params"),
            tags=_each_once(said, "tags"),
        )
        return {"model": await self._said(await self._models.get(model_id))}

    async def get(self, said: Fields) -> Mapping[str, Any]:
        """One model."""
        found = await self._models.get(_id(said), deleted_too=said.flag("allow_deleted"))
        return {"model": await self._said(found)}

    async def search(self, said: Fields) -> Mapping[str, Any]:
        """A page of the models that fit a filter."""
        numbers = [experiment_number(text) for text in said.texts("experiment_ids")]
        if not numbers:
            raise missing("experiment_ids")
        text, limit = said.text("filter", ""), said.integer("max_results", DEFAULT_PAGE)
        if not 1 <= limit <= MAX_PAGE:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"max_results must lie between 1 and {MAX_PAGE}")
        datasets = [_dataset(one) for one in said.items("datasets")]
        orders = [_order(one) for one in said.items("order_by")]
        question = (numbers, text, orders, datasets)
        offset = pages.offset(said.text("page_token", ""), question)
        clauses = filters.parse(text, filters.BARE_OF_MODELS)
        found = await self._models.search(numbers, clauses, orders, datasets, limit=limit + 1, offset=offset)
        places = {
            one.experiment_id: one.artifact_location for one in await self._experiments.many(sorted(set(numbers)))
        }
        shown = [spoken(model, places[model.experiment_id]) for model in found[:limit]]
        answer: dict[str, Any] = {"models": shown} if shown else {}
        return answer | ({"next_page_token": pages.token(offset + limit, question)} if len(found) > limit else {})

    async def finalize(self, said: Fields) -> Mapping[str, Any]:
        """Ready, or failed."""
        await self._models.finalize(_id(said), _status(said))
        return {"model": await self._said(await self._models.get(_id(said)))}

    async def delete(self, said: Fields) -> Mapping[str, Any]:
        """Deleted."""
        await self._models.delete(_id(said))
        return {}

    async def set_tags(self, said: Fields) -> Mapping[str, Any]:
        """Tags."""
        await self._models.set_tags(_id(said), dict(said.pairs("tags")))
        return {}

    async def delete_tag(self, said: Fields) -> Mapping[str, Any]:
        """No tag."""
        await self._models.delete_tag(_id(said), said.required_text("tag_key"))
        return {}

    async def log_params(self, said: Fields) -> Mapping[str, Any]:
        """Params."""
        await self._models.log_params(_id(said), _each_once(said, "params"))
        return {}

    async def artifacts(self, said: Fields) -> Mapping[str, Any]:
        """What lies in a directory of the model's artifacts."""
        found = await self._models.get(_id(said))
        path = checked_directory(said.text("artifact_directory_path", ""))
        files = await children(self._manifest, found.model_id, path, full_paths=True)
        root = (await self._said(found))["info"]["artifact_uri"]
        return {"root_uri": root} | ({"files": files} if files else {})

    async def _said(self, model: LoggedModel) -> dict[str, Any]:
        experiment = await self._experiments.get(model.experiment_id)
        return spoken(model, experiment.artifact_location)


def spoken(model: LoggedModel, location: str) -> dict[str, Any]:
    """A model as MLflow writes it."""
    model_id = f"m-{model.model_id.hex}"
    info: dict[str, Any] = {
        "model_id": model_id,
        "experiment_id": str(model.experiment_id),
        "name": model.name,
        "creation_timestamp_ms": model.created_at_ms,
        "last_updated_timestamp_ms": model.updated_at_ms,
        "artifact_uri": f"{location}/models/{model_id}/artifacts",
        "status": model.status,
    }
    if model.model_type:
        info["model_type"] = model.model_type
    if model.source_run_id is not None:
        info["source_run_id"] = model.source_run_id.hex
    if model.tags:
        info["tags"] = [{"key": key, "value": value} for key, value in model.tags.items()]
    data: dict[str, Any] = {}
    if model.params:
        data["params"] = [{"key": key, "value": value} for key, value in model.params.items()]
    if model.metrics:
        data["metrics"] = [_metric(run_id.hex, one) for run_id, one in model.metrics]
    return {"info": info, "data": data}


def _metric(run_id: str, one: ModelMetric) -> dict[str, Any]:
    said = {
        "key": one.key,
        "value": spoken_value(one.value),
        "timestamp": one.time_ms,
        "step": one.step,
        "model_id": f"m-{one.model_id.hex}",
        "run_id": run_id,
    }
    dataset = {"dataset_name": one.dataset_name, "dataset_digest": one.dataset_digest}
    return said | {name: value for name, value in dataset.items() if value}


def _order(said: Fields) -> ModelOrder:
    ascending = said.flag("ascending") if said.has("ascending") else True
    dataset = _dataset(said) if said.text("dataset_name", "") else None
    return ModelOrder.by(said.required_text("field_name"), ascending, dataset)


def _dataset(said: Fields) -> OnDataset:
    return OnDataset(said.required_text("dataset_name"), said.text("dataset_digest", ""))


def _each_once(said: Fields, name: str) -> dict[str, str]:
    pairs = said.pairs(name)
    if len(dict(pairs)) < len(pairs):
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{name}: a key stands there twice")
    return dict(pairs)


def _id(said: Fields) -> Any:
    return model_uuid(said.required_text("model_id"))


def _status(said: Fields) -> str:
    if not said.has("status"):
        raise missing("status")
    try:
        name = STATUSES.get(said.integer("status"), "")
    except ApiError:
        name = said.text("status")
    if name not in ("LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"):
        raise ApiError(
            400, "INVALID_PARAMETER_VALUE", "status is LOGGED_MODEL_READY (2) or LOGGED_MODEL_UPLOAD_FAILED (3)"
        )
    return name
