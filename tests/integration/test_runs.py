import asyncio
import time

import asyncpg
import pytest

from stepstream_ingest.compact import backlog
from stepstream_ingest.database import Database
from stepstream_ingest.errors import DatabaseAway
from stepstream_schema import batch, paths
from tests.integration.app import RUN, fetch, frame, get, metrics, post, running, start


async def test_runs_and_experiments_are_made_read_and_finished_by_request(database_url):
    async with running(database_url) as client:
        made = await (await client.post(paths.EXPERIMENTS, json={"name": "mine"})).json()
        again = await (await client.post(paths.EXPERIMENTS, json={"name": "mine"})).json()
        assert made == again == await get(client, f"{paths.EXPERIMENTS}/{made['experiment_id']}")
        assert made == await get(client, paths.EXPERIMENTS, name="mine")
        body = {"experiment": "mine", "name": "by hand", "run_id": RUN}
        run = await (await client.post(paths.RUNS, json=body)).json()
        assert (run["run_id"], run["status"], run["experiment_id"]) == (RUN, "RUNNING", made["experiment_id"])
        listed = await get(client, paths.RUNS, experiment_id=made["experiment_id"])
        assert [one["run_id"] for one in listed["runs"]] == [RUN]
        done = await (await client.post(paths.run(RUN) + "/finish", json={"status": "FAILED"})).json()
        assert done["status"] == "FAILED"
        assert done["end_time_ms"]


async def test_what_cannot_be_done_gets_a_reason(database_url):
    async with running(database_url) as client:
        for response, status in (
            (await client.get(paths.run("f" * 32)), 404),
            (await client.get(paths.run("zzz")), 400),
            (await client.get(paths.EXPERIMENTS, params={"name": "none"}), 404),
            (await client.post(paths.EXPERIMENTS, json={"name": ""}), 400),
            (await client.post(paths.EXPERIMENTS, data=b"{"), 400),
            (await client.post(paths.run(RUN) + "/finish", json={"status": "DONE"}), 400),
            (await client.get(paths.RUNS, params={"limit": "0"}), 400),
            (await client.get("/nothing"), 404),
            (await client.delete(paths.RUNS), 405),
        ):
            assert response.status == status, response.url
            assert (await response.json())["error_code"]


async def test_a_silent_run_that_promised_heartbeats_fails_and_its_next_frame_revives_it(database_url):
    async with running(database_url, heartbeat_timeout_s=0.3) as client:
        await post(client, frame(1, start(heartbeat_s=1)))
        await fetch(database_url, "UPDATE writers SET seen_at = seen_at - interval '1 hour'")
        async with asyncio.timeout(60):
            while (run := await get(client, paths.run(RUN)))["status"] != "FAILED":
                await asyncio.sleep(0.05)
        assert run["lost"]
        await post(client, frame(2, metrics({"a": [1.0]})))
        run = await get(client, paths.run(RUN))
    assert (run["status"], run["lost"], run["end_time_ms"]) == ("RUNNING", False, None)


async def test_silent_runs_are_looked_for_again_when_one_look_was_ended(database_url):
    waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'relation'"
    async with running(database_url, heartbeat_timeout_s=0.3) as client:
        await post(client, frame(1, start(heartbeat_s=1)))
        await fetch(database_url, "UPDATE writers SET seen_at = seen_at - interval '1 hour'")
        holder = await asyncpg.connect(database_url)
        async with holder.transaction():
            await holder.execute("LOCK TABLE writers")
            async with asyncio.timeout(20):
                while not await fetch(database_url, f"SELECT pg_cancel_backend(pid) {waiting}"):
                    await asyncio.sleep(0.02)
        await holder.close()
        async with asyncio.timeout(20):
            while (await get(client, paths.run(RUN)))["status"] != "FAILED":
                await asyncio.sleep(0.05)


async def test_a_connection_that_may_write_no_more_is_given_up(database_url):
    database = Database(database_url, max_connections=1)
    await database.fetch("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    write = "INSERT INTO experiments (name) VALUES ('x')"
    with pytest.raises(DatabaseAway):
        await database.fetch(write)
    await database.fetch(write)
    await database.close()


async def test_a_silent_run_that_promised_nothing_is_left_alone(database_url):
    async with running(database_url, heartbeat_timeout_s=0.1) as client:
        await post(client, frame(1, start(heartbeat_s=0)))
        await fetch(database_url, "UPDATE writers SET seen_at = seen_at - interval '1 hour'")
        rows = await fetch(database_url, "SELECT pg_sleep(0.5)")
        assert rows
        assert (await get(client, paths.run(RUN)))["status"] == "RUNNING"


async def status_for(client, seconds: float) -> set[str]:
    """Every status that the run is seen with."""
    seen = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        seen.add((await get(client, paths.run(RUN)))["status"])
        await asyncio.sleep(0.05)
    return seen


async def test_a_run_is_not_given_up_for_a_silence_in_which_no_server_was_there(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(heartbeat_s=1)))
    await fetch(database_url, "UPDATE writers SET seen_at = seen_at - interval '1 hour'")
    began = time.monotonic()
    async with running(database_url, heartbeat_timeout_s=0.3) as client:
        async with asyncio.timeout(60):
            while (await get(client, paths.run(RUN)))["status"] != "FAILED":
                await asyncio.sleep(0.05)
    # Four of its heartbeats.
    assert time.monotonic() - began > 4.0


async def test_a_run_is_not_given_up_while_clients_are_turned_away(database_url, monkeypatch):
    async with running(database_url, heartbeat_timeout_s=0.3, compaction=False) as client:
        await post(client, frame(1, start(heartbeat_s=1)))
        monkeypatch.setattr(backlog, "HARD_BYTES", 0)
        for seq in range(2, 8):
            response = await client.post(paths.FRAMES, data=batch.pack([frame(seq)]))
            assert response.status == 429
            assert await status_for(client, 1.0) == {"RUNNING"}
