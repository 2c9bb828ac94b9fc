"""The model registry, as MlflowClient asks for it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stepstream.entities import ModelVersion, PagedList, RegisteredModel
from stepstream.errors import ConfigurationError, QueryError
from stepstream.listed import listed
from stepstream.tracking import said
from stepstream.tracking.asking import Asking, encoded, texts, whole
from stepstream_schema import paths

OF_MODEL: Final = "models:/"
STAGES: Final = ["None", "Staging", "Production", "Archived"]


class Registry(Asking):
    """Makes, finds and changes registered models and their versions. Raises QueryError."""

    def create_registered_model(
        self, name: str, tags: Mapping[str, Any] | None = None, description: str | None = None
    ) -> RegisteredModel:
        """A new registered model."""
        body = {"name": name, "description": description or "", "tags": texts(tags)}
        return said.registered_model(self._ask("POST", paths.REGISTRY, body))

    def get_registered_model(self, name: str) -> RegisteredModel:
        """One registered model."""
        return said.registered_model(self._ask("GET", _model(name)))

    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: Sequence[str] | str | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """A page of the registered models that fit a filter."""
        return self._page(
            paths.REGISTRY + "/search",
            "models",
            said.registered_model,
            filter=filter_string,
            max_results=max_results,
            order_by=listed(order_by) or None,
            page_token=page_token,
        )

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """A new name; its versions go with it."""
        return said.registered_model(self._ask("PATCH", _model(name), {"name": new_name}))

    def update_registered_model(self, name: str, description: str | None = None) -> RegisteredModel:
        """A new description."""
        return said.registered_model(self._ask("PATCH", _model(name), {"description": description or ""}))

    def delete_registered_model(self, name: str) -> None:
        """The model goes with its versions."""
        self._ask("DELETE", _model(name))

    def set_registered_model_tag(self, name: str, key: str, value: Any) -> None:
        """The last value stays."""
        self._ask("POST", _model(name) + "/tags", {"tags": {key: str(value)}})

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """A tag goes."""
        self._ask("DELETE", _model(name) + "/tags", key=key)

    def set_registered_model_alias(self, name: str, alias: str, version: str | int) -> None:
        """An alias moves to a version."""
        self._ask("PUT", f"{_model(name)}/aliases/{encoded(alias)}", {"version": whole(version, "version")})

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """An alias goes."""
        self._ask("DELETE", f"{_model(name)}/aliases/{encoded(alias)}")

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version of an alias."""
        return said.version(self._ask("GET", f"{_model(name)}/aliases/{encoded(alias)}"))

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        await_creation_for: int | None = None,
        *,
        model_id: str | None = None,
    ) -> ModelVersion:
        """The next version of a model; it is ready at once, so that nothing has to be awaited."""
        body = {
            "source": source,
            "run_id": run_id or None,
            "tags": texts(tags),
            "run_link": run_link or "",
            "description": description or "",
            "model_id": model_id or "",
        }
        return said.version(self._ask("POST", _model(name) + "/versions", body))

    def copy_model_version(self, src_model_uri: str, dst_name: str) -> ModelVersion:
        """A version, as models:/name/3, by its stage or by its alias, under another name with all that is said of it.

        The model is made if there is none. Raises QueryError, and ConfigurationError for what names no version.
        """
        copied = self._version_at(src_model_uri)
        self._require_registered_model(dst_name)
        return self.create_model_version(
            dst_name,
            f"models:/{copied.name}/{copied.version}",
            copied.run_id,
            copied.tags,
            copied.run_link,
            copied.description,
            model_id=copied.model_id,
        )

    def get_model_version(self, name: str, version: str | int) -> ModelVersion:
        """One version."""
        return said.version(self._ask("GET", _version(name, version)))

    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = 10_000,
        order_by: Sequence[str] | str | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """A page of the versions that fit a filter."""
        return self._page(
            paths.MODEL_VERSIONS + "/search",
            "versions",
            said.version,
            filter=filter_string,
            max_results=max_results,
            order_by=listed(order_by) or None,
            page_token=page_token,
        )

    def get_latest_versions(self, name: str, stages: Sequence[str] | None = None) -> list[ModelVersion]:
        """The newest version of each stage, or of some."""
        found = self.get_registered_model(name).latest_versions
        wanted = {stage.lower() for stage in stages} if stages else None
        return [one for one in found if wanted is None or one.current_stage.lower() in wanted]

    def update_model_version(self, name: str, version: str | int, description: str | None = None) -> ModelVersion:
        """A new description."""
        return said.version(self._ask("PATCH", _version(name, version), {"description": description or ""}))

    def transition_model_version_stage(
        self, name: str, version: str | int, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """A new stage; with `archive_existing_versions`, it has this version alone."""
        known = next((one for one in STAGES if one.lower() == stage.lower()), stage)
        body = {"stage": known, "archive_existing": archive_existing_versions}
        return said.version(self._ask("PATCH", _version(name, version), body))

    def get_model_version_stages(self, name: str, version: str | int) -> list[str]:
        """The stages that a version can be in."""
        return list(STAGES)

    def get_model_version_download_uri(self, name: str, version: str | int) -> str:
        """Where the files of a version are."""
        found = self._ask("GET", _version(name, version))
        return str(found["storage_location"] or found["source"])

    def delete_model_version(self, name: str, version: str | int) -> None:
        """The version goes with its aliases; its number is never used again."""
        self._ask("DELETE", _version(name, version))

    def set_model_version_tag(
        self,
        name: str,
        version: str | int | None = None,
        key: str | None = None,
        value: Any = None,
        stage: str | None = None,
    ) -> None:
        """The last value stays. The version is named, or is the newest of a stage."""
        known = self._version_of(name, version, stage)
        self._ask("POST", _version(name, known) + "/tags", {"tags": {str(key): str(value)}})

    def delete_model_version_tag(
        self, name: str, version: str | int | None = None, key: str | None = None, stage: str | None = None
    ) -> None:
        """A tag goes. The version is named, or is the newest of a stage."""
        self._ask("DELETE", _version(name, self._version_of(name, version, stage)) + "/tags", key=str(key))

    def _require_registered_model(self, name: str) -> None:
        """Made if there is none."""
        try:
            self.create_registered_model(name)
        except QueryError as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version_at(self, uri: str) -> ModelVersion:
        said = uri.removeprefix(OF_MODEL).strip("/")
        name, at, alias = said.partition("@")
        if at:
            return self.get_model_version_by_alias(name, alias)
        name, _, which = said.rpartition("/")
        if not uri.startswith(OF_MODEL) or not name:
            raise ConfigurationError(
                f"say models:/name/3, models:/name/Production or models:/name@alias, unlike {uri!r}"
            )
        if which.isdecimal():
            return self.get_model_version(name, which)
        if which.lower() == "latest":
            newest = max(self.get_latest_versions(name), key=lambda one: int(one.version), default=None)
            which = newest.version if newest is not None else "1"
            return self.get_model_version(name, which)
        return self.get_model_version(name, self._version_of(name, None, which))

    def _version_of(self, name: str, version: str | int | None, stage: str | None) -> str | int:
        if (version is None) == (stage is None):
            raise ConfigurationError("say a version or a stage, and not both")
        if version is not None:
            return version
        found = self.get_latest_versions(name, [str(stage)])
        if not found:
            raise ConfigurationError(f"the model {name!r} has no version in the stage {stage}")
        return str(found[0].version)


def _model(name: str) -> str:
    return paths.registered_model(encoded(name))


def _version(name: str, version: str | int) -> str:
    return paths.model_version(encoded(name), encoded(str(version)))
