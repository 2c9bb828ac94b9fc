import asyncio
import json
import subprocess
import sys

import pytest

from stepstream_ingest.compact import backlog
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.database import Database
from stepstream_ingest.retention import store
from stepstream_ingest.retention.store import Retention
from stepstream_schema import batch, paths, sql
from tests.integration.app import RUN, fetch, frame, get, metrics, post, running, start
from tests.integration.test_mlflow_metrics import API, call

HISTORY = paths.run_history(RUN)
OTHER = "ef" * 16


@pytest.fixture
async def database(database_url, monkeypatch):
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)
    database = Database(database_url)
    yield database
    await database.close()


async def compacted(database, client, points=1000) -> None:
    await post(client, frame(1, start(), metrics({"a": [float(n) for n in range(points)]})))
    await post(client, frame(1, start(experiment="kept"), metrics({"a": [1.0] * 300}), run_id=OTHER))
    while await Compaction(database).round():
        pass


async def set_retention(client, name="e", **days):
    experiment = (await get(client, paths.EXPERIMENTS, name=name))["experiment_id"]
    response = await client.put(f"{paths.EXPERIMENTS}/{experiment}/retention", json=days)
    assert response.status == 200, await response.text()
    return await response.json()


async def test_old_raw_points_go_and_their_summaries_stay(database_url, database):
    async with running(database_url, compaction=False) as client:
        await compacted(database, client)
        before = await get(client, HISTORY, key="a", buckets=8)
        series = await get(client, paths.run_metrics(RUN))
        assert (await set_retention(client, keep_raw_days=7))["keep_raw_days"] == 7
        assert await Retention(database).age() == 0
        await fetch(database_url, "UPDATE chunks SET written_at = now() - interval '8 days'")
        assert await Retention(database).age() == 1
        after = await get(client, HISTORY, key="a", buckets=8)
        raw = await get(client, HISTORY, key="a")
        assert await get(client, paths.run_metrics(RUN)) == series
        other = await get(client, paths.run_history(OTHER), key="a")
    assert sum(after["counts"]) == sum(before["counts"]) == 1000
    assert (min(after["min"]), max(after["max"])) == (0.0, 999.0)
    # What is left of the raw points: first and last of every 128.
    assert raw["values"] == sorted(map(float, {*range(0, 1000, 128), *range(127, 1000, 128), 999}))
    assert other["count"] == 300
    shown = await fetch(database_url, f"SELECT count(*) AS n FROM metric_points WHERE run_id = '{RUN}'")
    assert shown[0]["n"] == 2


async def test_one_process_at_a_time_looks_for_what_is_old(database_url, database):
    async with running(database_url, compaction=False) as client:
        await compacted(database, client)
        await set_retention(client, keep_raw_days=7)
        await fetch(database_url, "UPDATE chunks SET written_at = now() - interval '8 days'")
        async with database.connection() as other, other.transaction():
            assert await other.fetchval(sql.queries("retention")["turn_to_age"])
            assert await Retention(database).age() == 0
        assert await Retention(database).age() == 1


async def test_what_other_experiments_keep_for_ever_is_not_looked_at(database_url, database):
    """Found by the index of what a run still has, and not among all chunks there are."""
    async with running(database_url, compaction=False) as client:
        await compacted(database, client)
        await set_retention(client, keep_raw_days=7)
    await fetch(database_url, "UPDATE chunks SET written_at = now() - interval '8 days'")
    # Of another experiment's run all, and of this one those that have been taken already.
    for run_id, body in ((OTHER, "body"), (RUN, "NULL")):
        await fetch(
            database_url,
            f"""
            INSERT INTO chunks
            SELECT $1, series_id, number, number, first_time_ms, first_value, last_step, last_time_ms, last_value,
                min_step, min_time_ms, min_value, max_step, max_time_ms, max_value, value_sum, points, nans, pos_infs,
                neg_infs, stride, written_at, buckets, {body}
            FROM (SELECT * FROM chunks WHERE body IS NOT NULL LIMIT 1) AS one, generate_series(1, 20000) AS number
            """,
            run_id,
        )
    await fetch(database_url, "ANALYZE chunks")
    plan = await fetch(
        database_url, "EXPLAIN (ANALYZE, FORMAT JSON) " + sql.queries("retention")["thin_old_chunks"], 2000
    )
    nodes = [json.loads(plan[0][0])[0]["Plan"]]
    for node in nodes:
        nodes += node.get("Plans", [])
    of_chunks = [node for node in nodes if node.get("Relation Name") == "chunks"]
    assert of_chunks
    visited = [(one["Actual Rows"] + one.get("Rows Removed by Filter", 0)) * one["Actual Loops"] for one in of_chunks]
    assert sum(visited) < 10, visited
    taken = await fetch(database_url, "SELECT count(*) AS n FROM chunks WHERE body IS NULL")
    assert taken[0]["n"] == 20_001


async def test_ended_runs_are_deleted_by_age_and_running_ones_stay(database_url, database):
    async with running(database_url, compaction=False) as client:
        await compacted(database, client)
        await set_retention(client, keep_days=30)
        assert await Retention(database).age() == 0
        await client.post(paths.run(RUN) + "/finish", json={"end_time_ms": 1_000_000})
        assert await Retention(database).age() == 1
        assert (await get(client, paths.run(RUN)))["lifecycle_stage"] == "deleted"
        assert (await get(client, paths.run(OTHER)))["lifecycle_stage"] == "active"


async def test_a_deleted_run_can_be_restored_until_it_is_collected(database_url, database, monkeypatch):
    monkeypatch.setattr(store, "ROWS_AT_A_TIME", 1)
    async with running(database_url, compaction=False) as client:
        await compacted(database, client, points=20_000)
        await post(client, frame(2, metrics({"a": [1.0]}, first_step=50_000)))
        await fetch(database_url, f"INSERT INTO untidy_groups VALUES ('{RUN}', -1, 0, 3)")
        assert (await client.delete(paths.run(RUN))).status == 200
        assert (await client.post(paths.run(RUN) + "/restore")).status == 200
        nothing = await (await client.post(paths.GC, json={})).json()
        assert (nothing["runs"], nothing["rows"]) == (0, 0)
        await client.delete(paths.run(RUN))
        found = await (await client.post(paths.GC, json={"dry_run": True})).json()
        assert (found["runs"], found["points"]) == (1, 20_000)
        young = await (await client.post(paths.GC, json={"older_than_days": 1})).json()
        assert young["runs"] == 0
        done = await (await client.post(paths.GC, json={})).json()
        assert (done["runs"], done["runs_left"]) == (1, 0)
        assert (await client.get(paths.run(RUN))).status == 404
        assert (await get(client, paths.run_history(OTHER), key="a"))["count"] == 300
    tables = await fetch(
        database_url,
        """SELECT table_name
            FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
            WHERE column_name = 'run_id' AND table_schema = 'public' AND table_type = 'BASE TABLE'""",
    )
    assert {"runs", "untidy_groups"} < {row["table_name"] for row in tables}
    for row in tables:
        assert await fetch(database_url, f"SELECT 1 FROM {row['table_name']} WHERE run_id = '{RUN}'") == []


async def test_a_deleted_logged_model_goes_with_its_files_unless_a_version_is_of_it(
    database_url, database, monkeypatch
):
    monkeypatch.setattr(store, "ROWS_AT_A_TIME", 2)
    async with running(database_url) as client:
        models = []
        for name in ("gone", "registered", "kept"):
            made = await call(
                client, "logged-models", experiment_id="0", name=name, params=[{"key": "a", "value": "1"}]
            )
            models.append(made["model"]["info"]["model_id"])
        gone, registered, kept = models
        await call(client, "registered-models/create", name="net")
        await call(client, "model-versions/create", name="net", source=f"models:/{registered}", model_id=registered)
        for model in models:
            for number in range(5):
                await fetch(
                    database_url,
                    """INSERT INTO artifacts (owner, path, object_id, size, content_type, logged_at_ms)
                        VALUES ($1::text::uuid, $2::int::text, gen_random_uuid(), 1, 'text/plain', 1)""",
                    model.removeprefix("m-"),
                    number,
                )
        for model in (gone, registered):
            assert (await client.delete(f"{API}/logged-models/{model}")).status == 200
        found = await (await client.post(paths.GC, json={"dry_run": True})).json()
        assert (found["runs"], found["models"]) == (0, 1)
        assert (await (await client.post(paths.GC, json={"older_than_days": 1})).json())["models"] == 0
        done = await (await client.post(paths.GC, json={})).json()
        assert (done["models"], done["models_left"], done["rows"]) == (1, 0, 5)
        assert (await client.get(f"{API}/logged-models/{kept}")).status == 200
    left = await fetch(database_url, "SELECT owner, count(*) FROM artifacts GROUP BY owner")
    assert {(f"m-{row['owner'].hex}", row["count"]) for row in left} == {(registered, 5), (kept, 5)}
    left = await fetch(database_url, "SELECT model_id FROM logged_model_params")
    assert {f"m-{row['model_id'].hex}" for row in left} == {registered, kept}


async def test_a_writer_that_outlives_its_collected_run_begins_it_anew(database_url, database):
    async with running(database_url, compaction=False) as client:
        await compacted(database, client)
        await client.delete(paths.run(RUN))
        await client.post(paths.GC, json={})
        answer = await client.post(paths.FRAMES, data=batch.pack([frame(5, metrics({"a": [1.0]}))]))
        if answer.status == 503:  # what the server remembered of the writer is gone; it says: send again
            assert (await post(client, frame(5, metrics({"a": [1.0]}))))["stored"] == 1
        assert (await get(client, HISTORY, key="a"))["count"] == 1


@pytest.mark.parametrize("body", [{"keep_raw_days": 0}, {"keep_days": "7"}, {"keep_dayz": 1}, {"keep_days": True}])
async def test_a_retention_that_cannot_be_meant_is_refused(database_url, body):
    async with running(database_url) as client:
        response = await client.put(f"{paths.EXPERIMENTS}/0/retention", json=body)
        assert response.status == 400
        assert "keep_" in (await response.json())["message"]


async def test_the_command_gc_says_what_it_would_do_and_does_it(server_factory):
    server = server_factory()
    import json
    import urllib.request

    from tests.integration.test_server_process import post as send

    await asyncio.to_thread(send, server.url, frame(1, start(), metrics({"a": [1.0, 2.0]})))
    request = urllib.request.Request(server.url + paths.run(RUN), method="DELETE")
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["lifecycle_stage"] == "deleted"
    command = [sys.executable, "-m", "stepstream.cli", "gc", "--tracking-uri", server.url]
    said = [
        await asyncio.to_thread(subprocess.run, [*command, *more], capture_output=True, text=True, timeout=60)
        for more in (["--dry-run"], [], [])
    ]
    assert [one.returncode for one in said] == [0, 0, 0], said
    assert "1 deleted runs" in said[0].stdout
    assert "1 deleted runs and 0 deleted logged models were removed" in said[1].stdout
    assert "0 deleted runs" in said[2].stdout
