"""What names, aliases, stages and sources may be, as MLflow has it. Pure."""

import re
from typing import Final
from urllib.parse import unquote

from stepstream_ingest.errors import ApiError
from stepstream_ingest.keys import check_key

STAGES: Final = ("None", "Staging", "Production", "Archived")
ALIAS: Final = re.compile(r"[\w\-]+")
RESERVED_ALIAS: Final = re.compile(r"latest|v\d+", re.IGNORECASE)
MAX_ALIAS_CHARS: Final = 255
MAX_NAME_CHARS: Final = 256
MAX_MODEL_TAG_CHARS: Final = 100_000
MAX_VERSION_TAG_CHARS: Final = 100_000


def check_name(name: str) -> str:
    """A registered model's name. Raises ApiError."""
    if not name.strip():
        raise invalid("Registered model name cannot be empty.")
    if any(character in name for character in "/:\0"):
        raise invalid(
            f"Invalid name: '{name[:100]}'. Registered model name cannot contain slashes ('/'), colons (':') or NUL."
        )
    if len(name) > MAX_NAME_CHARS:
        raise invalid(f"Registered model name exceeds the maximum length of {MAX_NAME_CHARS} characters")
    return name


def check_alias(alias: str) -> str:
    """An alias. Raises ApiError."""
    if not alias:
        raise invalid("Registered model alias name cannot be empty.")
    if not ALIAS.fullmatch(alias) or len(alias) > MAX_ALIAS_CHARS:
        raise invalid(
            f"Invalid alias name: '{alias[:100]}'. Names may only contain alphanumerics, underscores (_) and dashes "
            f"(-), and have at most {MAX_ALIAS_CHARS} characters."
        )
    if RESERVED_ALIAS.fullmatch(alias):
        what = "'latest' is reserved" if alias.lower() == "latest" else "version aliases (e.g. 'v9') are reserved"
        raise invalid(f"{what}: choose another alias name than '{alias}'.")
    return alias


def check_tag(key: str, value: str) -> None:
    """A tag of a model or version. Raises ApiError."""
    check_key(key, "tag")
    if len(value) > MAX_MODEL_TAG_CHARS or "\0" in value:
        raise invalid(f"Invalid value of tag '{key}': it has at most {MAX_MODEL_TAG_CHARS} characters and no NUL.")


def stage(text: str) -> str:
    """A stage by its name, however it is written. Raises ApiError."""
    found = next((one for one in STAGES if one.lower() == text.lower()), None)
    if found is None:
        raise invalid(f"Invalid Model Version stage: {text[:60]}. Value must be one of {', '.join(STAGES)}.")
    return found


def check_source(source: str) -> None:
    """A source that names no place outside of where it begins. Raises ApiError."""
    if not source.strip() or "\0" in source:
        raise bad_source(source, "it is empty or holds a NUL")
    decoded = unquote(unquote(source))
    if ".." in re.split(r"[/\\]", decoded):
        raise bad_source(source, "it may not contain '..'")
    scheme = source.partition(":")[0].lower() if ":" in source else ""
    if scheme in ("", "file") or len(scheme) == 1:
        raise bad_source(
            source, "it is a path of one machine; log the model to a run, and register runs:/<run id>/<path>"
        )


def bad_source(source: str, why: str) -> ApiError:
    """A source that cannot be registered."""
    return invalid(f"Invalid model version source: '{source[:300]}': {why}.")


def invalid(message: str) -> ApiError:
    """The request cannot be meant."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)
