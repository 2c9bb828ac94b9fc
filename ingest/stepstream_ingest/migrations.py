"""Brings a database to the current schema, once, whoever starts first."""

import asyncio
import logging
import time
from typing import Final

import asyncpg

from stepstream_ingest.database import translated
from stepstream_ingest.errors import DatabaseTooNew, ServerSetupError
from stepstream_schema import sql

LOGGER: Final = logging.getLogger(__name__)

LOCK: Final = 0x57EB_57EA
"""Advisory lock: servers that start together migrate one after the other."""

LOCK_WAIT_S: Final = 2.0
"""So long a migration waits for a table that is in use. Whoever comes after it waits behind it: servers that still run
would answer nobody for as long as somebody else's longest query takes."""
LOCK_PAUSE_S: Final = 3.0
PATIENCE_S: Final = 300.0
"""Then the server does not start."""
TURN_PAUSE_S: Final = 0.2
SAY_AGAIN_S: Final = 60.0

CREATE_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing, each migration in one transaction; the names of those applied.

    Raises DatabaseTooNew, having changed nothing, for a database of a newer StepStream, ServerSetupError where a table
    stays in use, and DatabaseAway.
    """
    with translated():
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            await _wait_for_turn(connection)
            await connection.execute(CREATE_TABLE)
            return await _apply(connection)
        finally:
            await connection.close()


async def _wait_for_turn(connection: asyncpg.Connection) -> None:
    # Asked again and again: a statement that waits would keep VACUUM from what has been deleted meanwhile.
    # However long it takes: a migration may rewrite what is large, and whoever stops this server is heard meanwhile.
    say_at = time.monotonic()
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        if time.monotonic() >= say_at:
            LOGGER.info("another server is bringing the database to the current schema; waiting for it")
            say_at = time.monotonic() + SAY_AGAIN_S
        await asyncio.sleep(TURN_PAUSE_S)


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
        await _apply_when_free(connection, migration)
        applied.append(migration.name)
    return applied


async def _apply_when_free(connection: asyncpg.Connection, migration: sql.Migration) -> None:
    deadline = time.monotonic() + PATIENCE_S
    said = False
    while True:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {int(LOCK_WAIT_S * 1000)}")
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)", migration.version, migration.name
                )
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            busy = f"migration {migration.version} ({migration.name}) waits for a table that is in use"
            if time.monotonic() > deadline:
                raise ServerSetupError(
                    f"{busy}, and has given up: {error}. Nothing of it was changed. The query that keeps it is the "
                    "oldest in pg_stat_activity; end it, or wait, and start the server again."
                ) from error
            if not said:
                LOGGER.warning("%s; trying again", busy)
                said = True
            await asyncio.sleep(LOCK_PAUSE_S)
        else:
            return
