"""Many requests ask at once whether their runs may be written to."""

import asyncio
from uuid import UUID

import pytest

from stepstream_ingest.database import Database
from stepstream_ingest.errors import ApiError, DatabaseAway
from stepstream_ingest.tracking.runs import Runs
from stepstream_ingest.tracking.stages import Stages


@pytest.fixture
async def database(database_url):
    database = Database(database_url)
    yield database
    await database.close()


class Counted:
    """The database, with the number of statements."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.statements = 0
        self.away = False

    async def fetch(self, query, *arguments):
        self.statements += 1
        if self.away:
            await asyncio.sleep(0)
            raise DatabaseAway("gone")
        return await self._database.fetch(query, *arguments)


async def run_of(database: Database) -> UUID:
    return await Runs(database, database).create(0, name="r", user="", start_time_ms=1, tags={})


async def test_those_who_ask_together_are_answered_together_and_each_for_its_own_run(database):
    runs = [await run_of(database) for _ in range(3)]
    counted = Counted(database)
    stages = Stages(counted)
    asked = [stages.of(run) for run in runs * 30] + [stages.of(UUID(int=7))]
    assert await asyncio.gather(*asked) == ["active"] * 90 + [None]
    assert counted.statements <= 2
    await database.fetch("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_id = $1", runs[0])
    assert await stages.of(runs[0]) == "deleted"


async def test_a_request_that_is_given_up_takes_nothing_from_the_others(database):
    run = await run_of(database)
    stages = Stages(database)
    first, second = asyncio.create_task(stages.of(run)), asyncio.create_task(stages.of(run))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "active"
    assert await stages.of(run) == "active"


async def test_a_database_that_is_away_is_said_to_all_and_asked_again(database):
    run = await run_of(database)
    counted = Counted(database)
    stages = Stages(counted)
    counted.away = True
    found = await asyncio.gather(*[stages.of(run) for _ in range(5)], return_exceptions=True)
    assert [type(one) for one in found] == [DatabaseAway] * 5
    counted.away = False
    assert await stages.of(run) == "active"


async def test_a_deleted_run_is_not_written_to(database):
    runs = Runs(database, database)
    run = await run_of(database)
    await runs.check_writable(run)
    await database.fetch("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_id = $1", run)
    with pytest.raises(ApiError, match="active"):
        await runs.check_writable(run)
    with pytest.raises(ApiError, match="not found"):
        await runs.check_writable(UUID(int=7))
