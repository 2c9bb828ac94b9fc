"""Where a version of a registered model comes from: what its source says of files, run and logged model."""

from dataclasses import dataclass
from uuid import UUID

import orjson

from stepstream_ingest.registry import rules, sources
from stepstream_ingest.registry.sources import Source
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.registry.values import Version
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModel, LoggedModels, model_uuid
from stepstream_ingest.tracking.runs import Runs

VERSIONS_TAG = "mlflow.modelVersions"
"""On a logged model: the versions that it became."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of a version are, and what they come from."""

    source: str
    """With the number of a version in place of its stage or alias."""
    location: str
    run_id: UUID | None
    model: LoggedModel | None


class Origins:
    """Follows sources through the registry, the runs and the logged models. Raises ApiError.

    Law, which is MLflow's: who names a run or a logged model as the origin names the one that the source lies in.
    """

    def __init__(self, registry: Registry, runs: Runs, models: LoggedModels, experiments: Experiments) -> None:
        self._registry = registry
        self._runs = runs
        self._models = models
        self._experiments = experiments

    async def of(self, text: str, run_id: UUID | None, model_text: str) -> Origin:
        """Of a source with what else is said of it: its run, and the id of its logged model."""
        source = sources.parse(text)
        if source.scheme == "models" and source.authority:
            raise sources.bad_source(text, "models: names no host")
        if source.scheme == "models" and (len(source.parts) > 1 or "@" in source.parts[0]):
            return await self._of_version(source, run_id, model_text)
        if model_text or source.scheme == "models":
            return await self._of_logged_model(source, run_id, model_text)
        await self._check_run(source, run_id)
        return Origin(text, text, run_id, None)

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
            source=origin.source,
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

    async def _of_logged_model(self, source: Source, run_id: UUID | None, model_text: str) -> Origin:
        if source.scheme == "runs" or (source.scheme == "models" and source.parts != (model_text,)):
            raise sources.bad_source(source.text, "model_id must name the logged model that it lies in")
        model = await self._models.get(model_uuid(model_text))
        experiment = await self._experiments.get(model.experiment_id)
        root = f"{experiment.artifact_location}/models/m-{model.model_id.hex}/artifacts"
        if source.is_proxied and not source.is_within(root):
            raise sources.bad_source(source.text, f"it does not lie in {model_text}, which is model_id")
        location = root if source.scheme == "models" else source.text
        return Origin(source.text, location, run_id or model.source_run_id, model)

    async def _check_run(self, source: Source, run_id: UUID | None) -> None:
        if source.scheme == "runs":
            roots = [f"runs:/{run_id.hex}"] if run_id is not None else []
        elif source.is_proxied:
            run = await self._runs.find(run_id) if run_id is not None else None
            roots = [f"{run.artifact_location}/{run.run_id.hex}/artifacts"] if run is not None else []
        else:
            return
        if not any(source.is_within(root) for root in roots):
            raise sources.bad_source(source.text, "run_id must name the run that it lies in")

    async def _of_version(self, source: Source, run_id: UUID | None, model_text: str) -> Origin:
        version = await self._referred(source)
        model_id = f"m-{version.model_id.hex}" if version.model_id is not None else ""
        if (run_id or version.run_id) != version.run_id or (model_text or model_id) != model_id:
            raise sources.bad_source(source.text, "run_id and model_id must be those of the version")
        model = await self._models.get(version.model_id) if version.model_id else None
        location = version.storage_location or version.source
        return Origin(f"models:/{version.name}/{version.version}", location, version.run_id, model)

    async def _referred(self, source: Source) -> Version:
        """The version that `models:/name/3`, `models:/name/Production` or `models:/name@alias` means."""
        name, *rest = source.parts
        if not rest:
            before, _, alias = name.partition("@")
            return await self._registry.by_alias(before, alias)
        if len(rest) > 1:
            raise sources.bad_source(source.text, "it is models:/<name>/<version or stage> or models:/<name>@<alias>")
        if rest[0].isdecimal():
            return await self._registry.version(name, rules.version_number(rest[0]))
        if rest[0].lower() == "latest":
            return await self._registry.by_alias(name, "latest")
        stage = rules.stage(rest[0])
        model = await self._registry.get(name)
        found = next((one for one in model.latest if one.stage == stage), None)
        if found is None:
            raise sources.bad_source(source.text, f"no version of {name} is in stage {stage}")
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
