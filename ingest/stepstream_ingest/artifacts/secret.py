"""The key that signs the embedded store's URLs."""

from stepstream_ingest.database import Database
from stepstream_schema import sql


async def load(dsn: str) -> str:
    """The key of this database's servers, hexadecimal. Raises DatabaseAway."""
    database = Database(dsn, max_connections=1)
    try:
        rows = await database.fetch(sql.queries("artifacts")["secret"])
        return str(rows[0]["value"].hex())
    finally:
        await database.close()
