"""What names, aliases and stages may be, as MLflow has it. Pure."""

import re
from typing import Final

from stepstream_ingest.errors import ApiError
from stepstream_ingest.keys import check_key

STAGES: Final = ("None", "Staging", "Production", "Archived")
ALIAS: Final = re.compile(r"[\w\-]+")
RESERVED_ALIAS: Final = re.compile(r"latest|v\d+", re.IGNORECASE)
MAX_ALIAS_CHARS: Final = 255
MAX_NAME_CHARS: Final = 256
MAX_VERSION_DIGITS: Final = 9
"""All that an int4 can hold."""
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


def version_number(text: str) -> int:
    """The number of a version, in digits of any script. Raises ApiError."""
    if not text.isdecimal() or len(text) > MAX_VERSION_DIGITS:
        raise invalid(f"Model version must be an integer, got '{text[:40]}'")
    return int(text)


def stage(text: str) -> str:
    """A stage by its name, however it is written. Raises ApiError."""
    found = next((one for one in STAGES if one.lower() == text.lower()), None)
    if found is None:
        raise invalid(f"Invalid Model Version stage: {text[:60]}. Value must be one of {', '.join(STAGES)}.")
    return found


def invalid(message: str) -> ApiError:
    """The request cannot be meant."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)
