"""Arrow streams: what they hold while their readers are slow, and what becomes of it when they go away."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pyarrow
import pytest

from stepstream_ingest.compact import backlog
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.database import Database
from stepstream_ingest.read import exports, formats, history
from stepstream_schema import paths
from stepstream_schema.records import Matrix
from tests.integration.app import RUN, fetch, frame, get, metrics, post, running, start

HISTORY = paths.run_history(RUN)
ONE_READER = 3
"""Connections of a worker of which readers have one."""
THREE_READERS = 9
PART = 8192 * 30
PARTS = 4
"""24 MB as columns: more than sockets hold."""


@pytest.fixture
async def long_series(database_url, monkeypatch):
    """A server with a long series in chunks, and a short one."""
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)
    database = Database(database_url)
    async with running(database_url, compaction=False) as client:
        await log(client)
    while await Compaction(database).round():
        pass
    await database.close()


async def log(client) -> None:
    for number in range(PARTS):
        steps = np.arange(number * PART, (number + 1) * PART)
        part = Matrix(keys=("a",), steps=steps, times_ms=steps, values=steps[None].astype(np.float64))
        await post(client, frame(number + 1, start(), part))
    await post(client, frame(PARTS + 1, metrics({"short": [1.0] * 1000})))


@pytest.fixture
async def exported(database_url, long_series):
    """The same with a single connection for whoever reads it."""
    async with running(database_url, compaction=False, connections=ONE_READER) as client:
        yield client


@asynccontextmanager
async def export(client, key: str = "a") -> AsyncIterator[asyncio.StreamReader]:
    """An export that is read as far as its header, and no further than it is then asked for."""
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port, limit=2**12)
    head = f"GET {HISTORY}?key={key} HTTP/1.1\r\nHost: {client.server.host}\r\nAccept: {paths.ARROW}\r\n\r\n"
    writer.write(head.encode())
    assert b" 200 " in await reader.readline()
    try:
        yield reader
    finally:
        writer.transport.abort()


async def held(database_url: str) -> int:
    """Snapshots that are open."""
    rows = await fetch(
        database_url,
        """SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'""",
    )
    return len(rows)


async def until_held(database_url: str, count: int) -> None:
    async with asyncio.timeout(20):
        while await held(database_url) != count:
            await asyncio.sleep(0.02)


async def test_exports_whose_readers_go_away_hold_nothing(exported, database_url):
    for _ in range(3):
        async with export(exported):
            await until_held(database_url, 1)
        await until_held(database_url, 0)
    assert sum((await get(exported, HISTORY, key="a", buckets=10))["counts"]) == PARTS * PART


async def test_an_export_that_takes_too_long_gives_its_snapshot_back_while_its_reader_waits(
    exported, database_url, monkeypatch, later
):
    # Sooner than anybody may stand still.
    monkeypatch.setattr(history, "SNAPSHOT_S", formats.STILL_S / 2)
    async with export(exported) as reader:
        await until_held(database_url, 1)
        later(history.SNAPSHOT_S)
        await until_held(database_url, 0)
        assert await broken(reader)
    assert sum((await get(exported, HISTORY, key="a", buckets=10))["counts"]) == PARTS * PART


async def test_an_export_in_which_the_database_goes_away_ends_before_its_end(exported, database_url):
    async with export(exported) as reader:
        await until_held(database_url, 1)
        await fetch(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        async with asyncio.timeout(20):
            assert await broken(reader)
    assert sum((await get(exported, HISTORY, key="a", buckets=10))["counts"]) == PARTS * PART


async def test_exports_that_are_read_slowly_leave_connections_to_other_questions(
    database_url, long_series, monkeypatch
):
    monkeypatch.setattr(exports, "TURN_WAIT_S", 0.2)
    arrow = {"Accept": paths.ARROW}
    async with running(database_url, compaction=False, connections=THREE_READERS) as client:
        async with export(client), export(client):
            await until_held(database_url, 2)
            for _ in range(3):
                refused = await client.get(HISTORY, params={"key": "a"}, headers=arrow)
                assert refused.status == 429
                assert refused.headers["Retry-After"]
                assert "buckets" in (await refused.json())["message"]
            assert (await get(client, paths.HEALTH))["status"] == "ok"
            assert (await get(client, HISTORY, key="a", buckets=10))["count"] == PARTS * PART
            for asked in ({"key": "short"}, {"key": "a", "buckets": "10"}, {"key": "a", "points": "10"}):
                answer = await client.get(HISTORY, params=asked, headers=arrow)
                assert pyarrow.ipc.open_stream(io.BytesIO(await answer.read())).read_all().num_rows > 0
            assert 'reason="exports full"' in await (await client.get(paths.METRICS)).text()
        await until_held(database_url, 0)
        # Their turns are given back a moment later.
        monkeypatch.setattr(exports, "TURN_WAIT_S", 20.0)
        answer = await client.get(HISTORY, params={"key": "a"}, headers=arrow)
        table = pyarrow.ipc.open_stream(io.BytesIO(await answer.read())).read_all()
    assert table["steps"].to_numpy().tolist() == list(range(PARTS * PART))


async def test_a_reader_that_stands_still_makes_room_for_others(exported, database_url, later):
    async with export(exported) as reader:
        await until_held(database_url, 1)
        later(formats.STILL_S)
        await until_held(database_url, 0)
        assert await broken(reader)


async def test_a_reader_that_is_slow_and_never_still_is_given_all_of_it(database_url, monkeypatch):
    monkeypatch.setattr(formats, "STILL_S", 3.0)
    async with running(database_url, compaction=False) as client:
        # Not compacted, and so written at once.
        await log(client)
        async with export(client) as reader:
            size, last, began = 0, b"", time.monotonic()
            while not last.endswith(b"\r\n0\r\n\r\n"):
                # So slowly that all of it takes longer than anybody may stand still.
                piece = await reader.readexactly(2**20) if size < 20 * 2**20 else await reader.read(2**20)
                assert piece, size
                size, last = size + len(piece), (last + piece)[-8:]
                await asyncio.sleep(0.2 if size < 20 * 2**20 else 0)
    assert time.monotonic() - began > formats.STILL_S
    assert size > PARTS * PART * 24


async def broken(reader: asyncio.StreamReader) -> bool:
    """Whether an answer ends without the mark of its end."""
    last = b""
    try:
        while piece := await reader.read(2**20):
            last = (last + piece)[-5:]
    except ConnectionResetError:
        return True
    return last != b"0\r\n\r\n"
