"""The border to asyncpg: connections, and its errors in our words."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import asyncpg

from stepstream_ingest.errors import DatabaseAway, NameTaken, NotStorable, RunClosed

Connection: TypeAlias = Any
"""asyncpg's connection, inside or outside a pool; asyncpg carries no types."""

ACQUIRE_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 60.0

COPY_PIECE_BYTES: Final = 2**20
"""Rows are handed to the driver in pieces of this size: each piece is one message."""
COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
COPY_TRAILER: Final = struct.pack("!h", -1)

RUN_CLOSED: Final = "SS001"
"""What our own function takes_points raises."""
UNIQUE_VIOLATION: Final = "23505"
PROGRAM_LIMIT: Final = "54000"
"""Such as a key that is too long for an index."""
DATA_EXCEPTION: Final = "22"
"""The class of SQLSTATE of values that PostgreSQL cannot take."""

_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    # After a failover this may be a connection to what is a standby now.
    asyncpg.ReadOnlySQLTransactionError,
    # Ended by an administrator, or by a limit that one has set.
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    # Not there yet, or closed to this user: for a client that has frames to deliver it is as good as away.
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise DatabaseAway for what another try may mend, and what our own functions raise; let defects through."""
    try:
        yield
    except _AWAY as error:
        if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
            # The driver's own DataError, whose name another one hides: it could not write an argument down.
            raise NotStorable(str(error)) from error
        raise DatabaseAway(f"PostgreSQL is away: {type(error).__name__}: {error}") from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == RUN_CLOSED:
            raise RunClosed(str(error)) from error
        if error.sqlstate == UNIQUE_VIOLATION:
            raise NameTaken(str(error)) from error
        if str(error.sqlstate).startswith(DATA_EXCEPTION) or error.sqlstate == PROGRAM_LIMIT:
            raise NotStorable(str(error)) from error
        raise


class Database:
    """A pool of connections that outlives PostgreSQL's restarts."""

    def __init__(self, dsn: str, *, max_connections: int = 6) -> None:
        self._dsn = dsn
        self._max_connections = max_connections
        self._pool: Any = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for a short while. Raises DatabaseAway."""
        with translated():
            pool = await self._opened()
            connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        try:
            with translated():
                yield connection
        except DatabaseAway as error:
            if isinstance(error.__cause__, asyncpg.ReadOnlySQLTransactionError):
                # Those that are in use would be kept for ever: what the name leads to now may be another server.
                await pool.expire_connections()
            raise
        finally:
            with translated():
                await pool.release(connection)

    async def fetch(self, sql: str, *arguments: Any) -> Sequence[Any]:
        """All rows of one query. Raises DatabaseAway."""
        async with self.connection() as connection:
            rows: Sequence[Any] = await connection.fetch(sql, *arguments)
            return rows

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            self._pool.terminate()

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=1,
                    max_size=self._max_connections,
                    command_timeout=COMMAND_TIMEOUT_S,
                    reset=_as_it_is,
                    # Prepared statements are what makes a group commit cheap: a pooler in transaction mode, which
                    # loses them between transactions, will not do.
                    server_settings={"application_name": "stepstream", "jit": "off"},
                )
        return self._pool


async def _as_it_is(_: Connection) -> None:
    # No statement of ours outlives its transaction, which asyncpg ends itself: asking PostgreSQL to forget settings
    # and locks would cost every short question a second one.
    return None


async def is_writable(dsn: str, timeout_s: float) -> bool:
    """Whether it takes a new connection and, by that, changes. Raises DatabaseAway."""
    with translated():
        async with asyncio.timeout(timeout_s):
            connection = await asyncpg.connect(dsn, server_settings={"application_name": "stepstream ready"})
            try:
                return bool(await connection.fetchval("SELECT current_setting('transaction_read_only') = 'off'"))
            finally:
                connection.terminate()


async def stream_copy(rows: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Rows in PostgreSQL's binary COPY format, framed as one stream."""
    pieces: list[bytes] = [COPY_HEADER]
    size = 0
    for row in rows:
        pieces.append(row)
        size += len(row)
        if size >= COPY_PIECE_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    yield b"".join([*pieces, COPY_TRAILER])
