"""A dataset that a run reads, as the note that the buffer carries and the record that a frame holds. Pure."""

import json
from collections.abc import Mapping
from typing import Any, Final

from stepstream.buffer import Note
from stepstream.data import described
from stepstream.errors import BadValue
from stepstream.keys import clean
from stepstream_schema import limits
from stepstream_schema.records import DATASET_TEXTS, Dataset

KIND: Final = "dataset"
CONTEXT_TAG: Final = "mlflow.data.context"
MAX_TEXT_CHARS: Final = 2**20
"""Of a profile or a schema: a frame holds 8 MiB, and a character may have four bytes."""


def note(dataset: Any, context: str | None, tags: Mapping[str, object], time_ms: int) -> Note:
    """What is too long is cut, as values of params are. Raises BadValue for what says no name."""
    said = {name: clean(text)[: min(DATASET_TEXTS[name], MAX_TEXT_CHARS)] for name, text in described(dataset).items()}
    if not said["name"]:
        raise BadValue("a dataset needs a name")
    pairs = {**({CONTEXT_TAG: context} if context else {}), **tags}
    said["tags"] = [  # type: ignore[assignment]
        (clean(key)[: limits.MAX_DATASET_TAG_KEY_CHARS], clean(value)[: limits.MAX_DATASET_TAG_VALUE_CHARS])
        for key, value in pairs.items()
    ]
    return Note(KIND, said["name"], json.dumps(said), time_ms)


def record(value: str) -> Dataset:
    """The record of a note's value."""
    said = json.loads(value)
    return Dataset(**said | {"tags": tuple(map(tuple, said["tags"]))})
