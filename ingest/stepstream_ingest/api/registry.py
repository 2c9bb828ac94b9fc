"""The model registry as JSON: /v1/registry."""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from stepstream_ingest.api import questions, values
from stepstream_ingest.api.experiments import TagKey, Tags
from stepstream_ingest.api.questions import Ordered
from stepstream_ingest.api.router import Router, invalid, run_uuid
from stepstream_ingest.api.values import ModelVersion, Pairs, RegisteredModel
from stepstream_ingest.openapi import Nothing, RunId, Text
from stepstream_ingest.origin import Origins
from stepstream_ingest.registry.store import Registry
from stepstream_schema import paths

OF_RUN: Final = re.compile(r"runs:/+([0-9a-f]{32})(?![^/])")
OF_MODEL: Final = re.compile(r"models:/+(m-[0-9a-f]{32})/*")
MAX_VERSION = 2**31
VersionNumber = Annotated[int, Meta(ge=1, lt=MAX_VERSION)]


class NewRegisteredModel(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A name under which versions will be registered."""

    name: Text
    description: Text = ""
    tags: Pairs = {}


class RegisteredModelChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; null stays as it is."""

    name: Text | None = None
    description: Text | None = None


class RegisteredModelSearch(Ordered, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Registered models that fit a filter."""

    max_results: Annotated[int, Meta(ge=1, le=1000)] = 100


class RegisteredModelPage(Struct, kw_only=True, frozen=True):
    """A page of registered models."""

    models: list[RegisteredModel]
    next_page_token: str | None = None


class AliasOf(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The version that an alias means from now on."""

    version: VersionNumber


class NewModelVersion(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A source: runs:/<run id>/<path>, models:/<model id>, models:/<name>/<version>, or any store's URI.

    A source in a run or logged model lies in that of `run_id` or `model_id`; runs:/ and models:/ say them themselves.
    """

    source: Text
    run_id: RunId | None = None
    model_id: str = ""
    run_link: Text = ""
    description: Text = ""
    tags: Pairs = {}


class ModelVersionChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; null stays as it is."""

    description: Text | None = None
    stage: Literal["None", "Staging", "Production", "Archived"] | None = None
    archive_existing: Annotated[bool, Meta(description="versions that are in that stage are archived")] = False


class ModelVersionSearch(Ordered, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Versions that fit a filter."""

    max_results: Annotated[int, Meta(ge=1, le=200_000)] = 1000


class ModelVersionPage(Struct, kw_only=True, frozen=True):
    """A page of versions."""

    versions: list[ModelVersion]
    next_page_token: str | None = None


class RegistryCalls:
    """Over the slice `registry`."""

    def __init__(self, registry: Registry, origins: Origins) -> None:
        self._registry = registry
        self._origins = origins

    def add_to(self, router: Router) -> None:
        """Register the calls."""
        model = paths.registered_model("{name}")
        version = paths.model_version("{name}", "{version}")
        router.add("POST", paths.REGISTRY, self.create)
        router.add("POST", paths.REGISTRY + "/search", self.search)
        router.add("GET", model, self.get)
        router.add("PATCH", model, self.change)
        router.add("DELETE", model, self.delete)
        router.add("POST", model + "/tags", self.set_tags)
        router.add("DELETE", model + "/tags", self.delete_tag)
        router.add("PUT", model + "/aliases/{alias}", self.set_alias)
        router.add("GET", model + "/aliases/{alias}", self.by_alias)
        router.add("DELETE", model + "/aliases/{alias}", self.delete_alias)
        router.add("POST", model + "/versions", self.create_version)
        router.add("POST", paths.MODEL_VERSIONS + "/search", self.search_versions)
        router.add("GET", version, self.version)
        router.add("PATCH", version, self.change_version)
        router.add("DELETE", version, self.delete_version)
        router.add("POST", version + "/tags", self.set_version_tags)
        router.add("DELETE", version + "/tags", self.delete_version_tag)

    async def create(self, body: NewRegisteredModel) -> RegisteredModel:
        """A new registered model."""
        await self._registry.create(body.name, body.description, body.tags)
        return await self.get(body.name)

    async def search(self, body: RegisteredModelSearch) -> RegisteredModelPage:
        """A page of the registered models that fit a filter."""
        orders = body.orders()
        page = questions.page(body, orders, body.max_results)
        found = await self._registry.search(page.clauses, orders, limit=page.limit + 1, offset=page.offset)
        shown, token = page.cut(found)
        return RegisteredModelPage(models=[values.registered_model(one) for one in shown], next_page_token=token)

    async def get(self, name: str) -> RegisteredModel:
        """One registered model."""
        return values.registered_model(await self._registry.get(name))

    async def change(self, name: str, body: RegisteredModelChange) -> RegisteredModel:
        """A new description, a new name; its versions go with it."""
        if body.description is not None:
            await self._registry.describe(name, body.description)
        if body.name is not None:
            await self._registry.rename(name, body.name)
        return await self.get(body.name or name)

    async def delete(self, name: str) -> Nothing:
        """The model goes with its versions."""
        await self._registry.delete(name)
        return Nothing()

    async def set_tags(self, name: str, body: Tags) -> RegisteredModel:
        """Tags of a model; the last values stay."""
        for key, value in body.tags.items():
            await self._registry.set_tag(name, key, value)
        return await self.get(name)

    async def delete_tag(self, name: str, query: TagKey) -> RegisteredModel:
        """A tag goes, if it is there."""
        await self._registry.delete_tag(name, query.key)
        return await self.get(name)

    async def set_alias(self, name: str, alias: str, body: AliasOf) -> RegisteredModel:
        """An alias moves to a version."""
        await self._registry.set_alias(name, alias, body.version)
        return await self.get(name)

    async def by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version of an alias; `latest` is the newest."""
        return values.version(await self._registry.by_alias(name, alias))

    async def delete_alias(self, name: str, alias: str) -> RegisteredModel:
        """An alias goes, if it is there."""
        await self._registry.delete_alias(name, alias)
        return await self.get(name)

    async def create_version(self, name: str, body: NewModelVersion) -> ModelVersion:
        """The next version of a model."""
        run_id, model_id = named(body)
        version = await self._origins.create_version(
            name,
            source=body.source,
            run_id=run_uuid(run_id) if run_id is not None else None,
            model_id=model_id,
            run_link=body.run_link,
            description=body.description,
            tags=body.tags,
        )
        return values.version(version)

    async def search_versions(self, body: ModelVersionSearch) -> ModelVersionPage:
        """A page of the versions that fit a filter, of any model."""
        orders = body.orders()
        page = questions.page(body, orders, body.max_results)
        found = await self._registry.search_versions(page.clauses, orders, limit=page.limit + 1, offset=page.offset)
        shown, token = page.cut(found)
        return ModelVersionPage(versions=[values.version(one) for one in shown], next_page_token=token)

    async def version(self, name: str, version: int) -> ModelVersion:
        """One version."""
        return values.version(await self._registry.version(name, checked_version(version)))

    async def change_version(self, name: str, version: int, body: ModelVersionChange) -> ModelVersion:
        """A new description, a new stage."""
        number = checked_version(version)
        if body.description is not None:
            await self._registry.describe_version(name, number, body.description)
        if body.stage is not None:
            await self._registry.set_stage(name, number, body.stage, archive_others=body.archive_existing)
        return await self.version(name, version)

    async def delete_version(self, name: str, version: int) -> Nothing:
        """The version goes with its aliases; its number is never used again."""
        await self._registry.delete_version(name, checked_version(version))
        return Nothing()

    async def set_version_tags(self, name: str, version: int, body: Tags) -> ModelVersion:
        """Tags of a version; the last values stay."""
        for key, value in body.tags.items():
            await self._registry.set_version_tag(name, checked_version(version), key, value)
        return await self.version(name, version)

    async def delete_version_tag(self, name: str, version: int, query: TagKey) -> ModelVersion:
        """A tag goes, if it is there."""
        await self._registry.delete_version_tag(name, checked_version(version), query.key)
        return await self.version(name, version)


def named(body: NewModelVersion) -> tuple[str | None, str]:
    """Run and logged model: where nothing is said of them, what the source itself names."""
    run, model = OF_RUN.match(body.source), OF_MODEL.fullmatch(body.source)
    return body.run_id or (run[1] if run else None), body.model_id or (model[1] if model else "")


def checked_version(number: int) -> int:
    """A number that a version may have. Raises ApiError."""
    if number >= MAX_VERSION:
        raise invalid(f"a version is a whole number below {MAX_VERSION}, not {number}")
    return number
