"""MLflow's model registry endpoints."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stepstream_ingest import filters, pages
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.fields import Fields, run_uuid
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.origin import Origins
from stepstream_ingest.registry import rules
from stepstream_ingest.registry.search import PROMPT_TAG
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.registry.values import Model, Version

MODELS_PAGE: Final = (100, 1000)
"""Default and most."""
VERSIONS_PAGE: Final = (200_000, 200_000)


class RegistryCalls:
    """Translates to the slice `registry`."""

    def __init__(self, registry: Registry, origins: Origins) -> None:
        self._registry = registry
        self._origins = origins

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("registered-models/create", self.create)
        router.get("registered-models/get", self.get)
        router.post("registered-models/rename", self.rename)
        router.add("PATCH", "registered-models/update", self.describe)
        router.add("DELETE", "registered-models/delete", self.delete)
        router.get("registered-models/search", self.search)
        for add in (router.get, router.post):
            add("registered-models/get-latest-versions", self.latest)
        router.post("registered-models/set-tag", self.set_tag)
        router.add("DELETE", "registered-models/delete-tag", self.delete_tag)
        router.post("registered-models/alias", self.set_alias)
        router.add("DELETE", "registered-models/alias", self.delete_alias)
        router.get("registered-models/alias", self.by_alias)
        router.post("model-versions/create", self.create_version)
        router.get("model-versions/get", self.version)
        router.add("PATCH", "model-versions/update", self.describe_version)
        router.add("DELETE", "model-versions/delete", self.delete_version)
        router.post("model-versions/transition-stage", self.set_stage)
        router.get("model-versions/search", self.search_versions)
        router.get("model-versions/get-download-uri", self.download_uri)
        router.post("model-versions/set-tag", self.set_version_tag)
        router.add("DELETE", "model-versions/delete-tag", self.delete_version_tag)

    async def create(self, said: Fields) -> Mapping[str, Any]:
        """A new model."""
        name, tags = said.required_text("name"), dict(said.pairs("tags"))
        _check_no_prompt(tags)
        await self._registry.create(name, said.text("description", ""), tags)
        return {"registered_model": _model(await self._registry.get(name))}

    async def get(self, said: Fields) -> Mapping[str, Any]:
        """One model."""
        return {"registered_model": _model(await self._registry.get(said.required_text("name")))}

    async def rename(self, said: Fields) -> Mapping[str, Any]:
        """A new name."""
        new_name = said.required_text("new_name")
        await self._registry.rename(said.required_text("name"), new_name)
        return {"registered_model": _model(await self._registry.get(new_name))}

    async def describe(self, said: Fields) -> Mapping[str, Any]:
        """A new description."""
        name = said.required_text("name")
        await self._registry.describe(name, said.text("description", ""))
        return {"registered_model": _model(await self._registry.get(name))}

    async def delete(self, said: Fields) -> Mapping[str, Any]:
        """The model with its versions."""
        await self._registry.delete(said.required_text("name"))
        return {}

    async def search(self, said: Fields) -> Mapping[str, Any]:
        """A page of models."""
        default, most = MODELS_PAGE
        limit = _limit(said, default, most)
        if limit == 0:
            return {}
        text, orders = said.text("filter", ""), [filters.parse_order(one) for one in said.texts("order_by")]
        offset = pages.offset(said.text("page_token", ""), (text, orders))
        found = await self._registry.search(filters.parse(text), orders, limit=limit + 1, offset=offset)
        answer = {"registered_models": [_model(one) for one in found[:limit]]} if found else {}
        return answer | _next(len(found) > limit, offset + limit, (text, orders))

    async def latest(self, said: Fields) -> Mapping[str, Any]:
        """The newest version of each stage, or of some."""
        stages = [rules.stage(one) for one in said.texts("stages")]
        model = await self._registry.get(said.required_text("name"))
        found = [_version(one) for one in model.latest if not stages or one.stage in stages]
        return {"model_versions": found} if found else {}

    async def set_tag(self, said: Fields) -> Mapping[str, Any]:
        """A tag of a model."""
        name, key = said.required_text("name"), said.required_text("key")
        await self._registry.set_tag(name, key, said.text("value", ""))
        return {}

    async def delete_tag(self, said: Fields) -> Mapping[str, Any]:
        """No tag."""
        await self._registry.delete_tag(said.required_text("name"), said.required_text("key"))
        return {}

    async def set_alias(self, said: Fields) -> Mapping[str, Any]:
        """An alias moves."""
        name, alias = said.required_text("name"), said.required_text("alias")
        await self._registry.set_alias(name, alias, _number(said))
        return {}

    async def delete_alias(self, said: Fields) -> Mapping[str, Any]:
        """No alias."""
        await self._registry.delete_alias(said.required_text("name"), said.required_text("alias"))
        return {}

    async def by_alias(self, said: Fields) -> Mapping[str, Any]:
        """The version of an alias."""
        found = await self._registry.by_alias(said.required_text("name"), said.required_text("alias"))
        return {"model_version": _version(found)}

    async def create_version(self, said: Fields) -> Mapping[str, Any]:
        """The next version."""
        run_text, tags = said.text("run_id", ""), dict(said.pairs("tags"))
        _check_no_prompt(tags)
        version = await self._origins.create_version(
            said.required_text("name"),
            source=said.required_text("source"),
            run_id=run_uuid(run_text) if run_text else None,
            model_id=said.text("model_id", ""),
            run_link=said.text("run_link", ""),
            description=said.text("description", ""),
            tags=tags,
        )
        return {"model_version": _version(version)}

    async def version(self, said: Fields) -> Mapping[str, Any]:
        """One version."""
        return {"model_version": _version(await self._version(said))}

    async def describe_version(self, said: Fields) -> Mapping[str, Any]:
        """A new description."""
        await self._registry.describe_version(said.required_text("name"), _number(said), said.text("description", ""))
        return {"model_version": _version(await self._version(said))}

    async def delete_version(self, said: Fields) -> Mapping[str, Any]:
        """The version with its aliases."""
        await self._registry.delete_version(said.required_text("name"), _number(said))
        return {}

    async def set_stage(self, said: Fields) -> Mapping[str, Any]:
        """A new stage."""
        name, stage = said.required_text("name"), said.required_text("stage")
        archive = said.flag("archive_existing_versions")
        await self._registry.set_stage(name, _number(said), stage, archive_others=archive)
        return {"model_version": _version(await self._version(said))}

    async def search_versions(self, said: Fields) -> Mapping[str, Any]:
        """A page of versions."""
        default, most = VERSIONS_PAGE
        limit = _limit(said, default, most)
        if limit < 1:
            raise rules.invalid(f"Invalid value for max_results. It must be a positive integer, but got {limit}")
        text, orders = said.text("filter", ""), [filters.parse_order(one) for one in said.texts("order_by")]
        offset = pages.offset(said.text("page_token", ""), (text, orders))
        found = await self._registry.search_versions(filters.parse(text), orders, limit=limit + 1, offset=offset)
        # As with MLflow, aliases are told by whoever asks for the version itself.
        shown = [_version(one) | {"aliases": []} for one in found[:limit]]
        return ({"model_versions": shown} if found else {}) | _next(len(found) > limit, offset + limit, (text, orders))

    async def download_uri(self, said: Fields) -> Mapping[str, Any]:
        """Where the files of a version are."""
        found = await self._version(said)
        return {"artifact_uri": found.storage_location or found.source}

    async def set_version_tag(self, said: Fields) -> Mapping[str, Any]:
        """A tag of a version."""
        name, key = said.required_text("name"), said.required_text("key")
        await self._registry.set_version_tag(name, _number(said), key, said.text("value", ""))
        return {}

    async def delete_version_tag(self, said: Fields) -> Mapping[str, Any]:
        """No tag."""
        await self._registry.delete_version_tag(said.required_text("name"), _number(said), said.required_text("key"))
        return {}

    async def _version(self, said: Fields) -> Version:
        return await self._registry.version(said.required_text("name"), _number(said))


def _model(model: Model) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": model.name,
        "creation_timestamp": model.created_at_ms,
        "last_updated_timestamp": model.updated_at_ms,
    }
    if model.description:
        said["description"] = model.description
    if model.latest:
        said["latest_versions"] = [_version(one) for one in model.latest]
    if model.tags:
        said["tags"] = [{"key": key, "value": value} for key, value in model.tags.items()]
    if model.aliases:
        said["aliases"] = [{"alias": alias, "version": str(number)} for alias, number in model.aliases.items()]
    return said


def _version(version: Version) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": version.name,
        "version": str(version.version),
        "creation_timestamp": version.created_at_ms,
        "last_updated_timestamp": version.updated_at_ms,
        "current_stage": version.stage,
        "description": version.description,
        "source": version.source,
        "run_id": version.run_id.hex if version.run_id else "",
        "status": "READY",
        "run_link": version.run_link,
    }
    if version.model_id is not None:
        said["model_id"] = f"m-{version.model_id.hex}"
    if version.tags:
        said["tags"] = [{"key": key, "value": value} for key, value in version.tags.items()]
    return said | ({"aliases": list(version.aliases)} if version.aliases else {})


def _check_no_prompt(tags: Mapping[str, str]) -> None:
    # A prompt is a model with this tag, whose versions have no files: it would be one that nobody could use.
    if tags.get(PROMPT_TAG, "").lower() == "true":
        raise ApiError(501, "NOT_IMPLEMENTED", "StepStream does not keep prompts: it has no prompt registry")


def _number(said: Fields) -> int:
    return rules.version_number(said.number_as_text("version"))


def _limit(said: Fields, default: int, most: int) -> int:
    limit = said.integer("max_results", default)
    if not 0 <= limit <= most:
        raise ApiError(
            400,
            "INVALID_PARAMETER_VALUE",
            f"Invalid value for request parameter max_results. It must be at most {most}, but got value {limit}",
        )
    return limit


def _next(more: bool, offset: int, question: Sequence[object]) -> dict[str, Any]:
    return {"next_page_token": pages.token(offset, question)} if more else {}
