"""Where a version of a registered model comes from: what its source says of files, run and logged model."""

from dataclasses import dataclass
from uuid import UUID

import orjson

from stepstream_ingest.registry import rules
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.registry.values import Version
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModel, LoggedModels, model_uuid

VERSIONS_TAG = "mlflow.modelVersions"
"""On a logged model: the versions that it became."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of a version are, and what they come from."""

    location: str
    run_id: UUID | None
    model: LoggedModel | None


class Origins:
    """Follows sources through the registry and the logged models. Raises ApiError."""

    def __init__(self, registry: Registry, models: LoggedModels, experiments: Experiments) -> None:
        self._registry = registry
        self._models = models
        self._experiments = experiments

    async def of(self, source: str, run_id: UUID | None, model_text: str) -> Origin:
        """Of a source with what else is said of it: its run, and the id of its logged model."""
        rules.check_source(source)
        scheme, _, rest = source.partition(":")
        first, _, second = rest.strip("/").partition("/")
        if scheme == "runs" and run_id is not None and first != run_id.hex:
            raise rules.bad_source(source, f"it belongs to another run than run_id {run_id.hex}")
        if scheme == "models" and first.startswith("m-"):
            if model_text and model_text != first:
                raise rules.bad_source(source, f"it is another model than model_id {model_text}")
            return await self._of_logged_model(first, run_id)
        if scheme == "models":
            version = await self._referred(source, first, second)
            model = await self._models.get(version.model_id) if version.model_id else None
            return Origin(version.storage_location or version.source, run_id or version.run_id, model)
        if model_text:
            origin = await self._of_logged_model(model_text, run_id)
            return Origin(source, origin.run_id, origin.model)
        return Origin(source, run_id, None)

    async def create_version(
        self,
        name: str,
        *,
        source: str,
        run_id: UUID | None,
        model_id: str,
        run_link: str,
        description: str,
        tags: dict[str, str],
    ) -> Version:
        """The next version of a model, noted on the logged model that it comes from."""
        origin = await self.of(source, run_id, model_id)
        version = await self._registry.create_version(
            name,
            source=source,
            storage_location=origin.location,
            run_id=origin.run_id,
            model_id=origin.model.model_id if origin.model else None,
            run_link=run_link,
            description=description,
            tags=tags,
        )
        if origin.model is not None:
            await self._note_version(origin.model, version)
        return version

    async def _of_logged_model(self, text: str, run_id: UUID | None) -> Origin:
        model = await self._models.get(model_uuid(text))
        experiment = await self._experiments.get(model.experiment_id)
        location = f"{experiment.artifact_location}/models/m-{model.model_id.hex}/artifacts"
        return Origin(location, run_id or model.source_run_id, model)

    async def _referred(self, source: str, name: str, rest: str) -> Version:
        """The version that `models:/name/3`, `models:/name/Production` or `models:/name@alias` means."""
        if "@" in name:
            before, _, alias = name.partition("@")
            return await self._registry.by_alias(before, alias)
        if rest.isdigit():
            return await self._registry.version(name, int(rest))
        if rest.lower() == "latest":
            return await self._registry.by_alias(name, "latest")
        stage = rules.stage(rest)
        model = await self._registry.get(name)
        found = next((one for one in model.latest if one.stage == stage), None)
        if found is None:
            raise rules.bad_source(source, f"no version of {name} is in stage {stage}")
        return found

    async def _note_version(self, model: LoggedModel, version: Version) -> None:
        try:
            noted = orjson.loads(model.tags.get(VERSIONS_TAG, "[]"))
        except orjson.JSONDecodeError:
            noted = []
        noted = noted if isinstance(noted, list) else []
        # MLflow's client writes the same entry after us, with the version as text: it must be equal to ours.
        entry = {"name": version.name, "version": str(version.version)}
        if entry not in noted:
            await self._models.set_tags(model.model_id, {VERSIONS_TAG: orjson.dumps([*noted, entry]).decode()})
