"""Logged models as JSON: /v1/logged-models."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from stepstream_ingest import filters
from stepstream_ingest.api import questions, values
from stepstream_ingest.api.experiments import TagKey, Tags
from stepstream_ingest.api.questions import Question
from stepstream_ingest.api.router import Router, run_uuid
from stepstream_ingest.api.values import LoggedModel, Pairs
from stepstream_ingest.openapi import Int64, RunId, Text
from stepstream_ingest.tracking import models
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.model_search import ModelOrder, OnDataset
from stepstream_ingest.tracking.models import LoggedModels, model_uuid
from stepstream_schema import paths


class NewLoggedModel(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A model that is about to be logged; one whose id is there already stays as it is."""

    experiment_id: Int64
    model_id: Annotated[str, Meta(pattern="^m-[0-9a-f]{32}$")] | None = None
    name: Text = ""
    model_type: Text = ""
    source_run_id: RunId | None = None
    params: Pairs = {}
    tags: Pairs = {}


class LoggedModelEnd(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Whether its files have arrived."""

    status: Literal["READY", "UPLOAD_FAILED"]


class Params(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Params that the model does not have yet."""

    params: Pairs


class MeasuredOn(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A dataset; without a digest, any of that name."""

    name: str
    digest: str = ""


class OrderBy(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A key of an order: an attribute, or a metric, which may be meant as measured on one dataset."""

    field_name: Annotated[Text, Meta(description="such as name, or metrics.val/acc with whatever characters it has")]
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


class LoggedModelSearch(Question, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Logged models that fit a filter; metrics count as measured on one of the datasets, where any are named."""

    experiment_ids: Annotated[list[Int64], Meta(min_length=1)]
    order_by: list[str | OrderBy] = field(default_factory=list)
    datasets: list[MeasuredOn] = field(default_factory=list)
    max_results: Annotated[int, Meta(ge=1, le=5000)] = 50


class LoggedModelPage(Struct, kw_only=True, frozen=True):
    """A page of logged models."""

    models: list[LoggedModel]
    next_page_token: str | None = None


class LoggedModelCalls:
    """Over the slice `tracking`."""

    def __init__(self, experiments: Experiments, models: LoggedModels) -> None:
        self._experiments = experiments
        self._models = models

    def add_to(self, router: Router) -> None:
        """Register the calls."""
        one = paths.logged_model("{model_id}")
        router.add("POST", paths.LOGGED_MODELS, self.create)
        router.add("POST", paths.LOGGED_MODELS + "/search", self.search)
        router.add("GET", one, self.get)
        router.add("PATCH", one, self.finalize)
        router.add("DELETE", one, self.delete)
        router.add("POST", one + "/tags", self.set_tags)
        router.add("DELETE", one + "/tags", self.delete_tag)
        router.add("POST", one + "/params", self.log_params)

    async def create(self, body: NewLoggedModel) -> LoggedModel:
        """Begin a logged model; its files go to its artifact_uri, and PATCH says that they have arrived."""
        experiment = await self._experiments.active(body.experiment_id)
        model_id = await self._models.create(
            experiment.experiment_id,
            name=body.name,
            model_type=body.model_type,
            source_run_id=run_uuid(body.source_run_id) if body.source_run_id is not None else None,
            params=body.params,
            tags=body.tags,
            model_id=model_uuid(body.model_id) if body.model_id is not None else None,
        )
        return await self._said(await self._models.get(model_id))

    async def search(self, body: LoggedModelSearch) -> LoggedModelPage:
        """A page of the logged models that fit a filter."""
        more = body.experiment_ids, body.datasets
        orders = [_order(one) for one in body.order_by]
        page = questions.page(body, orders, body.max_results, *more, bare=filters.BARE_OF_MODELS)
        shown, token = page.cut(
            await self._models.search(
                body.experiment_ids,
                page.clauses,
                orders,
                [OnDataset(one.name, one.digest) for one in body.datasets],
                limit=page.limit + 1,
                offset=page.offset,
            )
        )
        places = {one.experiment_id: one for one in await self._experiments.many(body.experiment_ids)}
        found = [values.logged_model(one, places[one.experiment_id].artifact_location) for one in shown]
        return LoggedModelPage(models=found, next_page_token=token)

    async def get(self, model_id: str) -> LoggedModel:
        """One logged model, be it deleted."""
        return await self._said(await self._models.get(model_uuid(model_id), deleted_too=True))

    async def finalize(self, model_id: str, body: LoggedModelEnd) -> LoggedModel:
        """Ready, or failed."""
        await self._models.finalize(model_uuid(model_id), f"LOGGED_MODEL_{body.status}")
        return await self.get(model_id)

    async def delete(self, model_id: str) -> LoggedModel:
        """Deleted."""
        await self._models.delete(model_uuid(model_id))
        return await self.get(model_id)

    async def set_tags(self, model_id: str, body: Tags) -> LoggedModel:
        """Tags; the last values stay."""
        await self._models.set_tags(model_uuid(model_id), body.tags)
        return await self.get(model_id)

    async def delete_tag(self, model_id: str, query: TagKey) -> LoggedModel:
        """A tag goes."""
        await self._models.delete_tag(model_uuid(model_id), query.key)
        return await self.get(model_id)

    async def log_params(self, model_id: str, body: Params) -> LoggedModel:
        """Params that it does not have yet."""
        await self._models.log_params(model_uuid(model_id), body.params)
        return await self.get(model_id)

    async def _said(self, model: models.LoggedModel) -> LoggedModel:
        experiment = await self._experiments.get(model.experiment_id)
        return values.logged_model(model, experiment.artifact_location)


def _order(said: str | OrderBy) -> ModelOrder:
    if isinstance(said, str):
        return ModelOrder(filters.parse_order(said))
    on = OnDataset(said.dataset_name, said.dataset_digest) if said.dataset_name else None
    return ModelOrder.by(said.field_name, said.ascending, on)
