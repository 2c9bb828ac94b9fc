"""Reads requests of MLflow's protocol: JSON bodies and query strings, with its own words where they are wrong. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from stepstream_ingest.errors import ApiError

DOCS: Final = "See the API docs for more information about request parameters."
INT64: Final = range(-(2**63), 2**63)
RUN_ID_CHARS: Final = 32
KNOWN_RUNS: Final = 1024
"""Run ids that are remembered, as text and as number: a training says the same one all day."""


class Fields:
    """One message of a request. Law: every reader returns a value of its type, or raises ApiError 400."""

    def __init__(self, said: Mapping[str, Any], path: str = "") -> None:
        self._said = said
        self._path = path

    def has(self, name: str) -> bool:
        """Whether it is given, and not null."""
        return self._get(name) is not None

    def raw(self, name: str) -> Any:
        """What was said, whatever it is."""
        return self._get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """Text; required unless there is a default."""
        value = self._get(name)
        if value is None:
            return str(self._default(name, default))
        if not isinstance(value, str):
            raise self._wrong(name, value)
        return value

    def required_text(self, name: str) -> str:
        """Text that is not empty."""
        value = self.text(name)
        if not value:
            raise missing(self._path + name)
        return value

    def number_as_text(self, name: str) -> str:
        """What is text, but may come as a number."""
        value = self._get(name)
        if value is None or value == "":
            raise missing(self._path + name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong(name, value)
        return str(value)

    def integer(self, name: str, default: int | None = None) -> int:
        """An int64, which may come as text."""
        value = self._get(name)
        if value is None:
            return int(self._default(name, default))
        number = _integer(value)
        if number is None:
            raise self._wrong(name, value)
        return number

    def number(self, name: str) -> float:
        """A double, which may come as text: "NaN", "Infinity", "-Infinity"."""
        value = self._get(name)
        if value is None:
            raise missing(self._path + name)
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError(value)
            return float(value)
        except (ValueError, OverflowError):
            raise self._wrong(name, value) from None

    def flag(self, name: str) -> bool:
        """A bool; absent is false."""
        value = self._get(name)
        if value in (True, "true", "True"):
            return True
        if value in (None, False, "false", "False"):
            return False
        raise self._wrong(name, value)

    def items(self, name: str) -> list["Fields"]:
        """Messages in a list; absent is empty."""
        value = self.sequence(name)
        if not all(isinstance(one, dict) for one in value):
            raise self._wrong(name, value)
        return [Fields(one, f"{self._path}{name}[{place}].") for place, one in enumerate(value)]

    def message(self, name: str) -> "Fields":
        """A message; required."""
        value = self._get(name)
        if value is None:
            raise missing(self._path + name)
        if not isinstance(value, dict):
            raise self._wrong(name, value)
        return Fields(value, f"{self._path}{name}.")

    def texts(self, name: str) -> list[str]:
        """Texts in a list; absent is empty, and numbers are taken as text."""
        value = self.sequence(name)
        if any(isinstance(one, dict | list | bool) or one is None for one in value):
            raise self._wrong(name, value)
        return [str(one) for one in value]

    def one_or_more(self, name: str) -> list[str]:
        """Texts of a field of a query, which is a list only where it is repeated."""
        value = self._get(name)
        return [value] if isinstance(value, str) else self.texts(name)

    def sequence(self, name: str) -> Sequence[Any]:
        """A list; absent is empty."""
        value = self._get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, value)
        return value

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Keys and values, in the order they came."""
        return [(one.required_text("key"), one.text("value", "")) for one in self.items(name)]

    def run_id(self) -> UUID:
        """The run that is meant."""
        return run_uuid(self.run_text())

    def run_text(self) -> str:
        """Its id as it was said, by its new or its old name."""
        text = self.text("run_id", "") or self.text("run_uuid", "")
        if not text:
            raise missing("run_id")
        return text

    def _get(self, name: str) -> Any:
        if name in self._said:
            return self._said[name]
        return self._said.get(_camel(name)) if "_" in name else None

    def _default(self, name: str, default: Any) -> Any:
        if default is None:
            raise missing(self._path + name)
        return default

    def _wrong(self, name: str, value: object) -> ApiError:
        return ApiError(
            400,
            "INVALID_PARAMETER_VALUE",
            f"Invalid value {json.dumps(value, default=str)[:300]} for parameter '{self._path}{name}' supplied: "
            f"Hint: Value was of type '{type(value).__name__}'. {DOCS}",
        )


def missing(name: str) -> ApiError:
    """A parameter that must be given is not."""
    message = f"Missing value for required parameter '{name}'. {DOCS}"
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def run_uuid(text: str) -> UUID:
    """A run's id. One that cannot be any is one that does not exist."""
    found = possible_run(text)
    if found is None:
        raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Run with id={text[:100]} not found")
    return found


def possible_run(text: str) -> UUID | None:
    """The same for whoever asks what is there: None for what is the id of no run."""
    return _uuid(text) if len(text) == RUN_ID_CHARS else None


@lru_cache(maxsize=KNOWN_RUNS)
def _uuid(text: str) -> UUID | None:
    return UUID(text) if re.fullmatch("[0-9a-fA-F]{32}", text) else None


def experiment_number(text: str) -> int:
    """An experiment's id, which is a number in text."""
    number = _integer(text)
    if number is None:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Invalid experiment ID: '{text[:100]}'; it is a whole number")
    return number


def from_query(query: Any) -> dict[str, Any]:
    """A query string as a message: what is repeated is a list."""
    said: dict[str, Any] = {}
    for name in query:
        values = query.getall(name)
        said[name] = values if len(values) > 1 or name in REPEATED else values[0]
    return said


REPEATED: Final = frozenset({"order_by", "stages", "experiment_ids", "run_ids"})
"""Fields that are lists even when they come once."""


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,19}", value.strip()):
        value = int(value)
    return value if isinstance(value, int) and value in INT64 else None


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
