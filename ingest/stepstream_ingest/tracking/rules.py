"""What keys, names and values may look like, as MLflow has it. Pure; each problem is the end of an error's message."""

from collections.abc import Iterable, Mapping
from typing import Final

from stepstream_ingest.errors import ApiError
from stepstream_ingest.keys import check_key
from stepstream_schema import limits
from stepstream_schema.records import DATASET_TEXTS

MAX_EXPERIMENT_TAG_CHARS: Final = 20_000
MODEL_NAME_FORBIDDEN: Final = "/:.%\"'"


def check_experiment_name(name: str) -> str:
    """A name of an experiment. Raises ApiError."""
    if not name.strip():
        raise invalid(f"Invalid experiment name: {name!r}. Experiment names cannot be empty.")
    if len(name) > limits.MAX_NAME_CHARS:
        raise invalid(f"'name' exceeds the maximum length of {limits.MAX_NAME_CHARS} characters")
    return _without_nul(name, "the experiment's name")


def check_experiment_tag(key: str, value: str) -> None:
    """A tag of an experiment, which may be longer than a run's. Raises ApiError."""
    check_key(key, "tag")
    if len(value) > MAX_EXPERIMENT_TAG_CHARS:
        raise invalid(f"'value' exceeds the maximum length of {MAX_EXPERIMENT_TAG_CHARS} characters")
    _without_nul(value, f"tag {key}")


def check_keys(keys: Iterable[str], what: str = "tag") -> None:
    """Keys of the tags that a run is made with, and of logged models: MLflow lets them be anything. Raises ApiError."""
    if any(len(key) > limits.MAX_KEY_CHARS or "\0" in key for key in keys):
        raise invalid(f"the key of a {what} has at most {limits.MAX_KEY_CHARS} characters, and no NUL")


def check_model_name(name: str) -> str:
    """A name of a logged model. Raises ApiError."""
    if not name.strip():
        raise invalid("The model name cannot be empty.")
    if any(character in name for character in MODEL_NAME_FORBIDDEN):
        raise invalid(
            f"Invalid model name ({name!r:.120}) provided. Model name must be a non-empty string and cannot "
            f"contain the following characters: {list(MODEL_NAME_FORBIDDEN)}."
        )
    return _without_nul(name, "the model's name")


def check_dataset(said: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """What a dataset is called, and the tags of its use. Raises ApiError."""
    if not said["name"]:
        raise invalid("a dataset needs a name")
    for name, most in DATASET_TEXTS.items():
        if len(_without_nul(said[name], f"the dataset's {name}")) > most:
            raise invalid(f"'{name}' exceeds the maximum length of {most} characters")
    for key, value in tags.items():
        most_key, most_value = limits.MAX_DATASET_TAG_KEY_CHARS, limits.MAX_DATASET_TAG_VALUE_CHARS
        if len(key) > most_key or len(value) > most_value:
            allowed = f"{most_key} and {most_value} characters"
            raise invalid(f"key and value of a dataset's tag exceed the maximum length of {allowed}")
        _without_nul(key + value, "a dataset's tag")


def param_value(key: str, value: str) -> str:
    """A param's value, cut where it is too long, as MLflow does."""
    return _without_nul(value, f"param {key}")[: limits.MAX_PARAM_VALUE_CHARS]


def tag_value(key: str, value: str) -> str:
    """A tag's value, cut where it is too long, as MLflow does."""
    return _without_nul(value, f"tag {key}")[: limits.MAX_TAG_VALUE_CHARS]


def check_artifact_location(location: str) -> str:
    """A location that an experiment was given. Raises ApiError."""
    scheme = location.partition(":")[0].lower() if ":" in location else ""
    if scheme == "runs" or "#" in location or ".." in location.split("/") or "\0" in location:
        raise invalid(f"Artifact URL can't include fragments or query parameters or '..': {location!r:.200}")
    if location and not scheme and not location.startswith("/"):
        raise invalid(f"artifact_location is a URI, or an absolute path of whoever writes there: {location!r:.200}")
    return location.rstrip("/")


def invalid(message: str) -> ApiError:
    """The request cannot be meant."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def _without_nul(text: str, what: str) -> str:
    if "\0" in text:
        raise invalid(f"{what} holds a NUL character, which no text may")
    return text
