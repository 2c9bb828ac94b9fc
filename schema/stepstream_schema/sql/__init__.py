"""The SQL of the store, in files: ordered migrations, and named queries.

A query file holds blocks that begin with `-- name: some_name`, followed by a sentence of what it does.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from an empty database to the current one; never changed once released."""

    version: int
    name: str
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, in order: 1, 2, 3, ... without gaps."""
    folder = files(__package__) / "migrations"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(
        Migration(int(name.split("_")[0]), name.removesuffix(".sql"), (folder / name).read_text()) for name in found
    )


@cache
def queries(topic: str) -> dict[str, str]:
    """The named queries of `queries/<topic>.sql`."""
    text = (files(__package__) / "queries" / f"{topic}.sql").read_text()
    _, *parts = _NAME.split(text)
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
