"""Points by requests for runs that are not there, or deleted, beside points for runs that are."""

import asyncio

from stepstream_schema import paths
from tests.integration.app import RUN, fetch, frame, metrics, post, running
from tests.integration.test_mlflow_metrics import call, history, new_run, point

MISSING = "7" * 32


async def test_what_closed_runs_are_sent_is_refused_and_their_neighbours_are_stored(database_url):
    async with running(database_url, compaction=False) as client:
        open_run, deleted = await new_run(client), await new_run(client)
        await call(client, "runs/log-metric", run_id=deleted, **point("a", 1, 1))
        await call(client, "runs/delete", run_id=deleted)

        async def log(run_id, step, expected):
            return await call(client, "runs/log-batch", expected, run_id=run_id, metrics=[point("a", step, 1, step)])

        # They wait for the same group commits.
        said = await asyncio.gather(
            *[
                log(run_id, step, expected)
                for step in range(30)
                for run_id, expected in ((open_run, 200), (deleted, 400), (MISSING, 404))
            ]
        )
        assert len(await history(client, open_run)) == 30
        assert len(await history(client, deleted)) == 1
        assert said[1]["error_code"] == "INVALID_PARAMETER_VALUE"
        assert "must be in the 'active' state. Current state is deleted" in said[1]["message"]
        assert said[2] == {
            "error_code": "RESOURCE_DOES_NOT_EXIST",
            "message": f"Run with id={MISSING} not found",
        }
        # Nor is a row left of each request.
        assert await fetch(database_url, "SELECT FROM writers") == []

        await call(client, "runs/restore", run_id=deleted)
        await log(deleted, 31, 200)
        assert len(await history(client, deleted)) == 2


async def test_a_batch_without_points_is_refused_all_the_same(database_url):
    async with running(database_url, compaction=False) as client:
        said = await call(client, "runs/log-batch", 404, run_id=MISSING)
        assert said["error_code"] == "RESOURCE_DOES_NOT_EXIST"
        async with client.post(f"{paths.RUNS}/{MISSING}/log", json={}) as response:
            assert response.status == 404, await response.text()


async def test_frames_of_clients_still_come_before_their_run(database_url):
    async with running(database_url, compaction=False) as client:
        said = await post(client, frame(1, metrics({"a": [1.0, 2.0]})))
        assert said["stored"] == 1
        await call(client, "runs/log-metric", run_id=RUN, **point("a", 9, 1, 9))
        assert [value for _, _, value in await history(client, RUN)] == [9, 1, 2]


async def test_a_run_that_was_removed_while_its_writer_is_remembered_is_not_there(database_url):
    async with running(database_url, compaction=False) as client:
        gone, stays = await new_run(client), await new_run(client)
        for run_id in (gone, stays):
            await call(client, "runs/log-metric", run_id=run_id, **point("a", 1, 1))
        for table in ("frames", "writers", "runs"):
            await fetch(database_url, f"DELETE FROM {table} WHERE run_id = $1::uuid", gone)
        said = {"key": "a", "value": 2, "timestamp": 2}
        both = [call(client, "runs/log-metric", 404, run_id=gone, **said)]
        both += [call(client, "runs/log-metric", run_id=stays, **said)]
        await asyncio.gather(*both)
        assert len(await history(client, stays)) == 2
        assert await fetch(database_url, "SELECT FROM frames WHERE run_id = $1::uuid", gone) == []
