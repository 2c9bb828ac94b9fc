"""What the source of a version says of where its files are. Pure."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_plus, urlsplit

from stepstream_ingest.errors import ApiError
from stepstream_ingest.registry.rules import invalid

PROXY: Final = "/api/2.0/mlflow-artifacts/artifacts"
MAX_ENCODINGS: Final = 8
"""How often a source may be percent-encoded: each time is a walk through all of it."""


@dataclass(frozen=True, slots=True)
class Source:
    """An absolute path in some store."""

    text: str
    scheme: str
    authority: str
    parts: tuple[str, ...]
    """Of its path, without percent signs."""

    @property
    def is_proxied(self) -> bool:
        """Whether it lies in a tracking server's own artifacts."""
        path = "/".join(["", *self.parts, ""])
        return self.scheme == "mlflow-artifacts" or (self.scheme in ("http", "https") and f"{PROXY}/" in path)

    def is_within(self, root: str) -> bool:
        """Whether it is below the root of a run or logged model."""
        other = _split(root)
        there = other.parts == self.parts[: len(other.parts)] and bool(other.parts)
        return there and (self.scheme, self.authority) == (other.scheme, other.authority)


def parse(text: str) -> Source:
    """A source that names no place outside of where it begins, and none of one machine. Raises ApiError."""
    plain = text
    for _ in range(MAX_ENCODINGS):
        before, plain = plain, unquote_plus(plain)
        if before == plain:
            break
    else:
        raise bad_source(text, f"it is encoded more than {MAX_ENCODINGS - 1} times")
    source, decoded = _split(text), _split(plain)
    if source.scheme in ("", "file") or len(source.scheme) == 1:
        raise bad_source(
            text, "it is a path of one machine; log the model to a run, and register runs:/<run id>/<path>"
        )
    if "\0" in plain or ".." in re.split(r"[/\\]", plain) or "." in decoded.parts:
        raise bad_source(text, "it may hold no '.', no '..' and no NUL")
    if not decoded.parts or not urlsplit(plain).path.startswith("/"):
        raise bad_source(text, "it has no absolute path")
    return source


def bad_source(source: str, why: str) -> ApiError:
    """A source that cannot be registered."""
    return invalid(f"Invalid model version source: '{source[:300]}': {why}.")


def _split(text: str) -> Source:
    try:
        said = urlsplit(text)
    except ValueError as error:
        raise bad_source(text, str(error)) from error
    parts = tuple(_decoded(part) for part in said.path.split("/") if part)
    return Source(text, said.scheme, said.netloc.lower(), parts)


def _decoded(part: str) -> str:
    for _ in range(MAX_ENCODINGS):
        part = unquote(part)
    return part
