"""What whoever runs a server asks it, and what it answers."""

import asyncio

import asyncpg

from stepstream_ingest import readiness
from stepstream_schema import paths
from tests.integration.app import get, running


async def test_a_server_is_ready_while_its_database_takes_changes(database_url, monkeypatch):
    monkeypatch.setattr(readiness, "KEPT_S", 0.0)
    owner = await asyncpg.connect(database_url)
    name = await owner.fetchval("SELECT current_database()")
    async with running(database_url, token="secret") as client:
        assert await get(client, paths.READY) == {"status": "ready"}
        # What a standby says of itself, too.
        await owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with client.get(paths.READY) as response:
            assert (response.status, (await response.json())["status"]) == (503, "database read-only")
        assert await get(client, paths.HEALTH) == {"status": "ok"}
        await owner.execute("SET default_transaction_read_only = off")
        await owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert await get(client, paths.READY) == {"status": "ready"}
    await owner.close()


async def test_it_is_ready_though_its_connections_are_all_in_use_and_asks_postgresql_once_a_while(database_url):
    async with running(database_url, connections=2) as client:
        held = await asyncpg.connect(database_url)
        async with held.transaction():
            await held.execute("LOCK TABLE experiments")
            waiting = [asyncio.create_task(client.get("/v1/experiments")) for _ in range(8)]
            await asyncio.sleep(0.2)
            answers = await asyncio.gather(*[get(client, paths.READY) for _ in range(20)])
            assert answers == [{"status": "ready"}] * 20
            asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stepstream ready'"
            assert await held.fetchval(asked) <= 1
        for answer in await asyncio.gather(*waiting):
            assert answer.status == 200
        await held.close()
