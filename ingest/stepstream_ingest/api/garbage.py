"""Deleted runs and their garbage as JSON: /v1/gc."""

from dataclasses import asdict
from typing import Annotated, Final

from msgspec import Meta, Struct

from stepstream_ingest.api.router import Router
from stepstream_ingest.retention.store import Retention
from stepstream_schema import paths

STEP_S: Final = 1.0
"""One request collects for about so long: whoever asks can show how far it is."""
MAX_DAYS: Final = 36_500


class Collection(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to remove, or with dry_run to count."""

    older_than_days: Annotated[int, Meta(ge=0, le=MAX_DAYS)] | None = None
    dry_run: bool = False


class Collected(Struct, kw_only=True, frozen=True):
    """What this step did, and what is left."""

    rows: int
    runs: int
    runs_left: int
    models: int
    """Logged models."""
    models_left: int


class Garbage(Struct, kw_only=True, frozen=True):
    """What there is to remove."""

    runs: int
    models: int
    """Logged models that no version of a registered model is of."""
    points: int


class GarbageCalls:
    """Over the slice `retention`."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention

    def add_to(self, router: Router) -> None:
        """Register the call."""
        router.add("POST", paths.GC, self.collect)

    async def collect(self, body: Collection) -> Collected | Garbage:
        """Remove deleted runs and logged models for about a second, or say what there is to remove (dry_run)."""
        older_than = body.older_than_days or 0
        if body.dry_run:
            return Garbage(**await self._retention.garbage(older_than))
        return Collected(**asdict(await self._retention.collect(older_than, STEP_S)))
