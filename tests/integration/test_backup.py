"""What docs/hosting.md says of backups: a dump of a server at work, brought into another database, has every point."""

import subprocess

import asyncpg

from stepstream_ingest.postgres import binaries
from stepstream_schema import paths
from tests.integration.app import RUN, fetch, frame, get, metrics, post, running, start

CHECKSUM = (
    "SELECT count(*), sum(value), md5(string_agg(key || step || value, ' ' ORDER BY key, step)) FROM metric_points"
)


def program(name: str, *arguments: str) -> None:
    command = [binaries.find().path(name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


async def test_a_dump_of_a_server_at_work_has_every_point(database_url, tmp_path):
    dump, name = tmp_path / "stepstream.dump", database_url.rpartition("/")[2].partition("?")[0] + "_restored"
    async with running(database_url) as client:
        for seq in range(1, 21):
            await post(client, frame(seq, start(), metrics({"loss": [seq / 7] * 50, "lr": [0.1] * 50}, 50 * seq)))
        async with client.post("/api/2.0/mlflow/registered-models/create", json={"name": "m"}) as response:
            assert response.status == 200
        before = await fetch(database_url, CHECKSUM)
        program("pg_dump", "-Fc", "-f", str(dump), "-d", database_url)
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"CREATE DATABASE {name}")
    await owner.close()
    restored = database_url.replace(database_url.rpartition("/")[2].partition("?")[0], name)
    program("pg_restore", "--exit-on-error", "--no-owner", "-d", restored, str(dump))
    assert before[0][0] == 2000
    assert [tuple(row) for row in await fetch(restored, CHECKSUM)] == [tuple(row) for row in before]
    async with running(restored) as client:
        # What its clients had not yet heard of is sent again, and stored once.
        again = frame(20, start(), metrics({"loss": [20 / 7] * 50, "lr": [0.1] * 50}, 1000))
        assert (await post(client, again, frame(21, metrics({"loss": [3.0]}, 2000))))["duplicates"] == 1
        series = (await get(client, paths.run_metrics(RUN)))["series"]
        assert {one["key"]: one["count"] for one in series} == {"loss": 1001, "lr": 1000}
        await get(client, "/v1/registry/models/m")
