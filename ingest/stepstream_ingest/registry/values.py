"""Models and versions as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a registered model."""

    name: str
    version: int
    source: str
    storage_location: str
    run_id: UUID | None
    model_id: UUID | None
    run_link: str
    description: str
    user_id: str
    stage: str
    created_at_ms: int
    updated_at_ms: int
    tags: Mapping[str, str]
    aliases: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One registered model."""

    name: str
    description: str
    created_at_ms: int
    updated_at_ms: int
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    latest: Sequence[Version]
    """Of each stage the newest."""
