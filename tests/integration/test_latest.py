"""The latest values of a run as one row: whatever compacts it, and in whatever order."""

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import asyncpg
import pytest

from stepstream_ingest import migrations
from stepstream_ingest.compact.backlog import Group
from stepstream_ingest.compact.compactor import Compactor
from stepstream_ingest.compact.series import LATEST_KEYS
from stepstream_ingest.database import Database
from stepstream_ingest.filters import parse
from stepstream_ingest.migrations import migrate
from stepstream_ingest.tracking.runs import Runs
from stepstream_schema import sql
from stepstream_schema.attempt import Attempt
from tests.integration.app import RUN, fetch, frame, metrics, post, running, start

SAID = "SELECT keys, ranks, last_steps, lasts FROM latest"


async def compact(database_url: str, *ranks: int | None) -> None:
    """These ranks at once, as so many servers would."""
    async with AsyncExitStack() as stack:
        passes = []
        for rank in ranks:
            database = Database(database_url, max_connections=1)
            stack.push_async_callback(database.close)
            writer = 0 if rank is None else rank + 1
            group = Group(run_id=UUID(RUN), rank=rank, attempt=Attempt().packed, writers=[writer])
            passes.append(Compactor(database).compact(group))
        assert all(done is not None and done.frames for done in await asyncio.gather(*passes))


def of_rank(rank: int, seq: int, values: dict[str, list[float]], first_step: int = 0) -> bytes:
    return frame(seq, start(), metrics(values, first_step), writer=rank + 1, rank=rank)


async def shown(database_url: str) -> dict[str, tuple[float, int]]:
    database = Database(database_url)
    run = await Runs(database, database).get(UUID(RUN))
    await database.close()
    return {key: (value, step) for key, value, step, _ in run.metrics}


async def found(database_url: str, text: str) -> bool:
    database = Database(database_url)
    runs = Runs(database, database)
    experiment = (await fetch(database_url, "SELECT experiment_id FROM runs"))[0]["experiment_id"]
    ids = await runs.search([experiment], parse(text), [], stage="active", limit=2, offset=0)
    await database.close()
    return ids == [UUID(RUN)]


async def test_ranks_that_are_compacted_at_once_lose_nothing_of_each_other(database_url):
    ranks = range(6)
    async with running(database_url, compaction=False) as client:
        for seq in range(1, 6):
            for rank in ranks:
                said = {"shared": [rank + seq / 10], f"own-{rank}": [seq], f"new-{rank}-{seq}": [rank]}
                await post(client, of_rank(rank, seq, said, first_step=seq))
            await compact(database_url, *ranks)
    (row,) = await fetch(database_url, SAID)
    expected = {"shared": (0.5, 5)} | {f"own-{rank}": (5.0, 5) for rank in ranks}
    expected |= {f"new-{rank}-{seq}": (float(rank), seq) for rank in ranks for seq in range(1, 6)}
    assert dict(zip(row["keys"], zip(row["lasts"], row["last_steps"], strict=True), strict=True)) == expected
    assert row["ranks"][row["keys"].index("shared")] == 0
    assert await shown(database_url) == expected


@pytest.mark.parametrize("keys", [("loss", "own"), ("own", "loss")])
async def test_a_pass_that_has_waited_for_a_lower_rank_still_says_what_only_it_has(database_url, keys, monkeypatch):
    """PostgreSQL then looks at the row again, and must look at all that the pass has to say."""
    # Without the statement before it, which would mostly have waited in its place.
    monkeypatch.setitem(sql.queries("compact"), "open_latest", "SELECT $1::uuid")
    async with running(database_url, compaction=False) as client:
        await post(client, of_rank(2, 1, {"loss": [2.0]}))
        await fetch(database_url, "INSERT INTO latest (run_id) VALUES ($1)", UUID(RUN))
        await compact(database_url, 2)
        await post(client, of_rank(1, 1, {key: [7.0] for key in keys}))
        lower = await asyncpg.connect(database_url)
        async with lower.transaction():
            # As rank 0 would, which has the same key.
            await lower.execute("UPDATE latest SET ranks = '{0}', lasts = '{0.5}'")
            waiting = asyncio.create_task(compact(database_url, 1))
            while not await fetch(database_url, "SELECT FROM pg_locks WHERE NOT granted"):
                assert not waiting.done()
                await asyncio.sleep(0.02)
        await waiting
        await lower.close()
    assert await shown(database_url) == {"loss": (0.5, 0), "own": (7.0, 0)}


async def test_a_rank_that_nobody_would_see_writes_nothing(database_url):
    place = "SELECT ctid, xmin FROM latest"
    async with running(database_url, compaction=False) as client:
        await post(client, of_rank(0, 1, {"loss": [1.0]}), of_rank(7, 1, {"loss": [2.0]}))
        await compact(database_url, 0)
        before = await fetch(database_url, place)
        await compact(database_url, 7)
        assert await fetch(database_url, place) == before
        await post(client, of_rank(0, 2, {"loss": [0.5]}, first_step=1))
        await compact(database_url, 0)
        assert await fetch(database_url, place) != before
    assert await shown(database_url) == {"loss": (0.5, 1)}


async def test_what_waits_in_frames_is_seen_beside_it(database_url):
    async with running(database_url, compaction=False) as client:
        await post(client, of_rank(2, 1, {"loss": [3.0, 2.0], "lr": [0.1, 0.2]}))
        await compact(database_url, 2)
        await post(client, of_rank(2, 2, {"loss": [1.0]}, first_step=2), of_rank(0, 1, {"lr": [0.3]}))
        assert await shown(database_url) == {"loss": (1.0, 2), "lr": (0.3, 0)}
        for text, expected in {"metrics.loss = 1": True, "metrics.loss = 2": False, "metrics.lr < 0.25": False}.items():
            assert await found(database_url, text) == expected, text


async def test_a_run_of_very_many_keys_is_found_by_its_series(database_url):
    keys = [f"key-{number:04}" for number in range(LATEST_KEYS + 1)]
    async with running(database_url, compaction=False) as client:
        await post(client, of_rank(0, 1, {key: [1.0] for key in keys[:-1]}))
        await compact(database_url, 0)
        assert (await fetch(database_url, SAID))[0]["keys"] == keys[:-1]
        await post(client, of_rank(0, 2, {key: [2.0] for key in keys}, first_step=1))
        await compact(database_url, 0)
        assert (await fetch(database_url, SAID))[0]["keys"] is None
        assert await found(database_url, "metrics.`key-0000` = 2 AND metrics.`key-0128` = 2")
        await post(client, of_rank(0, 3, {"key-0128": [3.0]}, first_step=2))
        assert await found(database_url, "metrics.`key-0000` = 2 AND metrics.`key-0128` = 3")
        await compact(database_url, 0)
        assert await found(database_url, "metrics.`key-0000` = 2 AND metrics.`key-0128` = 3")
    assert await shown(database_url) == dict.fromkeys(keys[:-1], (2.0, 1)) | {"key-0128": (3.0, 2)}


async def test_a_database_of_the_version_before_is_filled(database_url, empty_database_url, monkeypatch):
    """Its series are taken from one that has been compacted since."""
    async with running(database_url, compaction=False) as client:
        await post(client, of_rank(0, 1, {"loss": [1.0], "lr": [0.1]}), of_rank(3, 1, {"loss": [2.0], "own": [3.0]}))
        await post(client, frame(1, start(), metrics({"loss": [9.0]}), run_id="9" * 32, writer=9))
        await compact(database_url, 0, 3)
    series = await fetch(database_url, "SELECT * FROM series")
    with monkeypatch.context() as before:
        older = tuple(one for one in sql.migrations() if one.version < 14)
        before.setattr(migrations.sql, "migrations", lambda: older)
        await migrate(empty_database_url)
    columns = list(series[0].keys())
    old_names = ", ".join(columns).replace("loose_chunks", "loose")
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    for row in series:
        await fetch(empty_database_url, f"INSERT INTO series ({old_names}) VALUES ({places})", *row)
    await migrate(empty_database_url)
    assert await fetch(empty_database_url, SAID) == await fetch(database_url, SAID)
