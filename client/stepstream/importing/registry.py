"""The registry of a StepStream server that is moved into.

A version that was taken has a tag: its number, which version of which source it is and, once all of it is here, what it
looked like there. So what is another's is told from what was taken, what was cut off goes on, and what was changed here
stays until the source changes.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from stepstream.errors import QueryError
from stepstream.importing.values import SourceModel, SourceVersion, of_name
from stepstream.query import Server

API: Final = "/api/2.0/mlflow/"
TAKEN_TAG: Final = "stepstream.imported"
USED_TAG: Final = "stepstream.imported.used"
"""On a model: the highest number that is used up here, where no version tells."""
MADE: Final = "made"
"""A model that an import has made, whose description and tags follow the source."""
JOINED: Final = "joined"
"""One that was here before, and keeps its own."""
LEFT_OUT: Final = "s3://nowhere/left-out"
"""The source of a version that is made to use up its number, and removed."""
NOT_FROM_HERE: Final = re.compile(r"(?!\w\w+:)|(file|mlflow-artifacts|models|runs):|https?:.*/mlflow-artifacts/")
"""Places that name files by the server or the machine they are told to: here, they would be others."""
NOT_REFUSED: Final = (401, 403, 408, 429)
"""Answers that are about the asker, not about what was asked."""


class RegistryTarget:
    """Law: a version has the number that it has in the source, or is left out and said."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def take(self, one: SourceModel, *, copied: bool) -> list[str]:
        """A registered model with its versions, whose files were copied or not; what could not be taken, and why."""
        try:
            tags = self._begin(one)
        except QueryError as error:
            _check_refused(error)
            return [f"registered model {one.name!r} was left out: {error}"]
        here = self._versions(one.name)
        used = max([int(tags.get(USED_TAG, 0)), *here])
        for left in [number for number, found in here.items() if _is_left_over(number, found)]:
            self._delete(one.name, left)
            del here[left]
        problems: list[str] = []
        ours: set[int] = set()
        for version in one.versions:
            number, found = version.version, here.get(version.version)
            try:
                if found is None and number > used:
                    # Numbers that the source has used up are used up here too.
                    used = self._use_up(one.name, number - 1, used)
                if found is None and number > used:
                    used, found = self._create(one.name, version, copied)
                if found is not None and _is_taken(found, one.name, version):
                    self._settle_version(one.name, version, found)
                    ours.add(number)
                else:
                    problems.append(_why_not(one.name, number, found is not None))
            except QueryError as error:
                _check_refused(error)
                problems.append(f"version {number} of {one.name!r} was left out: {error}")
        if used > max([0, *here, *ours]) and str(used) != tags.get(USED_TAG):
            self._say("registered-models/set-tag", name=one.name, key=USED_TAG, value=str(used))
        return problems + self._settle(one, tags[TAKEN_TAG], ours)

    def _begin(self, one: SourceModel) -> dict[str, str]:
        """The model, made if it is not here; its tags."""
        try:
            found = self._ask("registered-models/get", name=one.name)
        except QueryError as error:
            if error.status != 404:
                raise
            # A StepStream server, too, may be the source: what it notes of itself is not true here.
            tags = _pairs({**_own(one.tags), TAKEN_TAG: MADE})
            found = self._say("registered-models/create", name=one.name, description=one.description, tags=tags)
        return {TAKEN_TAG: JOINED, **_tags(found["registered_model"])}

    def _create(self, name: str, version: SourceVersion, copied: bool) -> tuple[int, dict[str, Any] | None]:
        """The number that is used up now, and the version if it is its own."""
        tags = _pairs({**version.tags, TAKEN_TAG: _identity(name, version)})
        said = {
            "name": name,
            "source": source_of(version, copied=copied),
            "description": version.description,
            "tags": tags,
        }
        ids = {"run_id": version.run_id, "model_id": version.model_id}
        made = self._say("model-versions/create", **said, **{key: one for key, one in ids.items() if one})
        found: dict[str, Any] = made["model_version"]
        number = int(found["version"])
        if number == version.version:
            return number, found
        self._delete(name, number)
        return number, None

    def _use_up(self, name: str, number: int, used: int) -> int:
        """All numbers up to this one; the highest that is used up then."""
        while used < number:
            used = int(self._say("model-versions/create", name=name, source=LEFT_OUT)["model_version"]["version"])
            self._delete(name, used)
        return used

    def _settle_version(self, name: str, version: SourceVersion, found: dict[str, Any]) -> None:
        """Whatever may change of a version, unless it is as it was when it was taken; and last that it is complete."""
        place, tags = {"name": name, "version": str(version.version)}, _tags(found)
        taken = f"{_identity(name, version)} {_state(version)}"
        if tags.get(TAKEN_TAG) == taken:
            return
        if found.get("description", "") != version.description:
            self._change("PATCH", "model-versions/update", **place, description=version.description)
        for key, value in version.tags.items():
            if key != TAKEN_TAG and tags.get(key) != value:
                self._say("model-versions/set-tag", **place, key=key, value=value)
        if found["current_stage"] != version.stage:
            self._say("model-versions/transition-stage", **place, stage=version.stage)
        self._say("model-versions/set-tag", **place, key=TAKEN_TAG, value=taken)

    def _settle(self, one: SourceModel, taken: str, ours: set[int]) -> list[str]:
        """Aliases, and what else may change of a model; the aliases that were left out."""
        how, _, before = taken.partition(" ")
        state = _digest(one.description, sorted(one.tags.items()), sorted(one.aliases.items()))
        if before == state:
            return []
        if how == MADE:
            self._change("PATCH", "registered-models/update", name=one.name, description=one.description)
            for key, value in _own(one.tags).items():
                self._say("registered-models/set-tag", name=one.name, key=key, value=value)
        problems = []
        for alias, number in sorted(one.aliases.items()):
            if number not in ours:
                problems.append(f"alias {alias} of {one.name!r} was left out: its version {number} was not taken")
                continue
            try:
                self._say("registered-models/alias", name=one.name, alias=alias, version=str(number))
            except QueryError as error:
                _check_refused(error)
                problems.append(f"alias {alias!r} of {one.name!r} was left out: {error}")
        # What was left out is tried again, and said again.
        said = f"{how} {state if not problems else 'incomplete'}"
        self._say("registered-models/set-tag", name=one.name, key=TAKEN_TAG, value=said)
        return problems

    def _versions(self, name: str) -> dict[int, dict[str, Any]]:
        said = self._ask("model-versions/search", filter=of_name(name), max_results=10_000)
        return {int(one["version"]): one for one in said.get("model_versions", []) if one["name"] == name}

    def _delete(self, name: str, number: int) -> None:
        self._change("DELETE", "model-versions/delete", name=name, version=str(number))

    def _change(self, method: str, path: str, **said: Any) -> None:
        self._server.send(method, API + path, json.dumps(said).encode(), "application/json")

    def _say(self, path: str, **said: Any) -> dict[str, Any]:
        return self._server.post(API + path, said)

    def _ask(self, path: str, **asked: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._server.get(API + path, **asked))
        return answer


def source_of(version: SourceVersion, *, copied: bool) -> str:
    """Of a model or below a run that was taken along: where it is here. Anywhere else, or not copied: where it is."""
    there = version.location or version.source
    if not copied and not NOT_FROM_HERE.match(there):
        return there
    if version.model_id:
        return f"models:/{version.model_id}"
    inside = f"/{version.run_id}/artifacts/"
    if version.run_id and inside in version.source:
        return f"runs:/{version.run_id}/{version.source.partition(inside)[2]}"
    return version.source


def _identity(name: str, version: SourceVersion) -> str:
    return f"{version.version} {_digest(name, version.source)}"


def _state(version: SourceVersion) -> str:
    return _digest(version.stage, version.description, sorted(version.tags.items()))


def _is_taken(found: dict[str, Any], name: str, version: SourceVersion) -> bool:
    taken = _tags(found).get(TAKEN_TAG)
    if taken is None:
        # Earlier imports did not say so.
        return found["source"] in (version.source, source_of(version, copied=True))
    return taken.split(" ")[:2] == _identity(name, version).split(" ")


def _is_left_over(number: int, found: dict[str, Any]) -> bool:
    """A version that an import made to use up its number, and was killed before it could remove it."""
    taken = _tags(found).get(TAKEN_TAG, "").split(" ")
    return found["source"] == LEFT_OUT or (len(taken) == 2 and taken[0] != str(number))


def _why_not(name: str, number: int, is_here: bool) -> str:
    if is_here:
        return (
            f"version {number} of {name!r} was left out: this number is another's here, which stays; to take both, "
            f"rename the registered model that is here, and import again"
        )
    return (
        f"version {number} of {name!r} is not here, where its number is used up: it was left out or deleted before; "
        f"register it anew if it is wanted"
    )


def _check_refused(error: QueryError) -> None:
    """Goes on where the server refuses this one thing alone. Raises QueryError."""
    status = error.status
    if status is None or status in NOT_REFUSED or not (400 <= status < 500 or status == 501):
        raise error


def _digest(*said: Any) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _own(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in (TAKEN_TAG, USED_TAG)}


def _tags(said: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag["key"]): str(tag["value"]) for tag in said.get("tags", [])}


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
