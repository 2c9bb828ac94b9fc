"""Experiments as JSON: /v1/experiments."""

from typing import Annotated

from msgspec import Meta, Struct

from stepstream_ingest.api import questions, values
from stepstream_ingest.api.questions import Ordered, View
from stepstream_ingest.api.router import Router
from stepstream_ingest.api.values import Experiment, Pairs
from stepstream_ingest.errors import ApiError
from stepstream_ingest.openapi import Text
from stepstream_ingest.retention.store import Retention
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_schema import paths

LISTED = 1000
MAX_DAYS = 36_500
Days = Annotated[int, Meta(ge=1, le=MAX_DAYS)]


class NewExperiment(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An experiment by its name; location and tags are used where it is made."""

    name: Text
    artifact_location: Text = ""
    tags: Pairs = {}
    exclusive: Annotated[bool, Meta(description="refuse a name that is taken, rather than answer its experiment")] = (
        False
    )


class ExperimentChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A new name."""

    name: Text


class ExperimentSearch(Ordered, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Experiments that fit a filter."""

    view: View = "active"
    max_results: Annotated[int, Meta(ge=1, le=50_000)] = LISTED


class ExperimentPage(Struct, kw_only=True, frozen=True):
    """A page of experiments."""

    experiments: list[Experiment]
    next_page_token: str | None = None


class ByName(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Of one name, or the newest of all."""

    name: str = ""


class Tags(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Tags to set; the last value stays."""

    tags: Pairs


class TagKey(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which tag goes."""

    key: str


class RetentionChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long raw points and ended runs are kept; null is for ever."""

    keep_raw_days: Days | None = None
    keep_days: Days | None = None


class ExperimentRetention(Struct, kw_only=True, frozen=True):
    """What an experiment keeps."""

    experiment_id: int
    name: str
    keep_raw_days: int | None
    keep_days: int | None


class ExperimentCalls:
    """Over the slices `tracking` and `retention`."""

    def __init__(self, experiments: Experiments, retention: Retention) -> None:
        self._experiments = experiments
        self._retention = retention

    def add_to(self, router: Router) -> None:
        """Register the calls."""
        one = paths.experiment("{experiment_id}")
        router.add("POST", paths.EXPERIMENTS, self.create)
        router.add("GET", paths.EXPERIMENTS, self.by_name)
        router.add("POST", paths.EXPERIMENTS + "/search", self.search)
        router.add("GET", one, self.get)
        router.add("PATCH", one, self.change)
        router.add("DELETE", one, self.delete)
        router.add("POST", one + "/restore", self.restore)
        router.add("POST", one + "/tags", self.set_tags)
        router.add("DELETE", one + "/tags", self.delete_tag)
        router.add("PUT", one + "/retention", self.keep)

    async def create(self, body: NewExperiment) -> Experiment:
        """The experiment of a name, made if there is none."""
        if body.exclusive:
            number = await self._experiments.create(body.name, body.artifact_location, body.tags)
            return await self.get(number)
        return values.experiment(await self._experiments.get_or_create(body.name, body.artifact_location, body.tags))

    async def by_name(self, query: ByName) -> Experiment | ExperimentPage:
        """One experiment by its name, or the newest 1000, deleted ones included."""
        if query.name:
            return values.experiment(await self._experiments.by_name(query.name))
        found = await self._experiments.search([], [], stage="all", limit=LISTED, offset=0)
        return ExperimentPage(experiments=[values.experiment(one) for one in found])

    async def search(self, body: ExperimentSearch) -> ExperimentPage:
        """A page of the experiments that fit a filter."""
        orders = body.orders()
        page = questions.page(body, orders, body.max_results, body.view)
        found = await self._experiments.search(
            page.clauses, orders, stage=body.view, limit=page.limit + 1, offset=page.offset
        )
        shown, token = page.cut(found)
        return ExperimentPage(experiments=[values.experiment(one) for one in shown], next_page_token=token)

    async def get(self, experiment_id: int) -> Experiment:
        """One experiment, be it deleted."""
        return values.experiment(await self._experiments.get(experiment_id))

    async def change(self, experiment_id: int, body: ExperimentChange) -> Experiment:
        """A new name."""
        await self._experiments.rename(experiment_id, body.name)
        return await self.get(experiment_id)

    async def delete(self, experiment_id: int) -> Experiment:
        """Deleted with its runs, until it is restored or the garbage collected."""
        await self._experiments.delete(experiment_id)
        return await self.get(experiment_id)

    async def restore(self, experiment_id: int) -> Experiment:
        """Restored with its runs."""
        await self._experiments.restore(experiment_id)
        return await self.get(experiment_id)

    async def set_tags(self, experiment_id: int, body: Tags) -> Experiment:
        """Tags."""
        for key, value in body.tags.items():
            await self._experiments.set_tag(experiment_id, key, value)
        return await self.get(experiment_id)

    async def delete_tag(self, experiment_id: int, query: TagKey) -> Experiment:
        """A tag goes."""
        await self._experiments.delete_tag(experiment_id, query.key)
        return await self.get(experiment_id)

    async def keep(self, experiment_id: int, body: RetentionChange) -> ExperimentRetention:
        """How long raw points (keep_raw_days) and ended runs (keep_days) are kept; null is for ever."""
        return ExperimentRetention(**await self._retention.set(experiment_id, body.keep_raw_days, body.keep_days))


async def number_of(experiments: Experiments, name: str, number: int | None) -> int:
    """An active experiment, by its number, or by its name, under which it is made if there is none."""
    if number is not None:
        return (await experiments.active(number)).experiment_id
    found = await experiments.get_or_create(name, "", {})
    if found.lifecycle_stage != "active":
        raise ApiError(400, "INVALID_STATE", f"experiment {name!r} is deleted; restore it, or choose another name")
    return found.experiment_id
