"""A PostgreSQL that somebody else runs: whether it will do, and how many of its connections are ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from stepstream_ingest.database import translated
from stepstream_ingest.errors import DatabaseAway, NotStorable, ServerSetupError
from stepstream_ingest.postgres.binaries import MIN_MAJOR

MAX_PER_WORKER: Final = 9
"""Connections that a worker has a use for."""
MIN_PER_WORKER: Final = 6
"""Two commits, a pass of compaction, everything else, a reader, and one who exports for as long as he likes: with fewer
they wait for one another."""
SPARE: Final = 5
"""For people, and for the start of the next server."""

ALLOWED: Final = """
SELECT least(
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true), '0')::integer,
    (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
    (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
)
"""


@contextmanager
def explained(named: str) -> Iterator[None]:
    """What goes wrong with the PostgreSQL that the operator has named, in words: ServerSetupError.

    `named` says which, without its password.
    """
    try:
        yield
    except DatabaseAway as error:
        raise ServerSetupError(
            f"the database {named} cannot be reached ({error}). Check that it runs, that this machine may connect to "
            "it, and the user and database in --database-url."
        ) from error
    except (ValueError, OverflowError):
        # Not what it says: that may be a piece of the password.
        raise ServerSetupError(
            "--database-url cannot be read: after the host comes a port from 1 to 65535, and what is special in a "
            "user's name or password, such as / @ : # [ ] and %, is written as %2F %40 %3A %23 %5B %5D %25"
        ) from None
    except (asyncpg.PostgresError, NotStorable) as error:
        raise ServerSetupError(
            f"the database {named} cannot be used: {error}. The user needs a schema to make tables in (GRANT CREATE ON "
            "SCHEMA public, or a database of its own), and a connection that leads to PostgreSQL itself or to a pooler "
            "in session mode; in transaction mode prepared statements and locks would be lost."
        ) from error


async def check(dsn: str, workers: int) -> int:
    """How many connections each worker may open. Raises ServerSetupError for what will not do, and DatabaseAway."""
    with translated():
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            require_version(connection.get_server_version().major)
            return connections_each(await connection.fetchval(ALLOWED), workers)
        finally:
            await connection.close()


def require_version(major: int) -> None:
    """Raise ServerSetupError for one that is too old."""
    if major < MIN_MAJOR:
        raise ServerSetupError(
            f"--database-url names a PostgreSQL {major}, and StepStream needs {MIN_MAJOR} or newer; nothing was "
            "changed. Name a newer one, or leave the option out for an embedded one."
        )


def connections_each(allowed: int, workers: int) -> int:
    """What each of the workers may open of `allowed` connections. Raises ServerSetupError where that is too few."""
    each = (allowed - SPARE) // workers
    if each < MIN_PER_WORKER:
        most = (allowed - SPARE) // MIN_PER_WORKER
        way_out = f"start with --workers {most} or fewer, or raise" if most > 0 else "raise"
        raise ServerSetupError(
            f"the PostgreSQL of --database-url allows {allowed} connections, and {workers} workers need "
            f"{workers * MIN_PER_WORKER + SPARE}: {way_out} its max_connections (or the limit of this user or database)"
        )
    return min(MAX_PER_WORKER, each)
