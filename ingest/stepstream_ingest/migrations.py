"""Brings a database to the current schema, once, whoever starts first."""

from typing import Final

import asyncpg

from stepstream_ingest.database import translated
from stepstream_ingest.errors import DatabaseTooNew
from stepstream_schema import sql

LOCK: Final = 0x57EB_57EA
"""Advisory lock: servers that start together migrate one after the other."""

CREATE_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing, each migration in one transaction; the names of those applied.

    Raises DatabaseTooNew, having changed nothing, for a database of a newer StepStream, and DatabaseAway.
    """
    with translated():
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
            await connection.execute(CREATE_TABLE)
            return await _apply(connection)
        finally:
            await connection.close()


async def _apply(connection: asyncpg.Connection) -> list[str]:
    current = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations")
    known = sql.migrations()
    if current > len(known):
        raise DatabaseTooNew(
            f"the database is at schema version {current} and this StepStream knows {len(known)}; nothing was "
            "changed. Start the newer StepStream that used it, or point this one at another database."
        )
    applied = []
    for migration in known[current:]:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)", migration.version, migration.name
            )
        applied.append(migration.name)
    return applied
