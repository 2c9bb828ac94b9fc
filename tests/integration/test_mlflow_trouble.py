"""Requests of MLflow's protocol that come together, late, or with what cannot be meant."""

import asyncio

import pytest

from stepstream_schema.records import Start, Status
from tests.integration.app import RUN, frame, post, running
from tests.integration.test_mlflow_metrics import ask, call, new_run

HOSTILE = [
    ("runs/search", {"experiment_ids": ["0"], "filter": "params.p = 'a\0b'"}),
    ("runs/create", {"experiment_id": "0", "user_id": "a\0b"}),
    ("registered-models/create", {"name": "m", "description": "a\0b"}),
    ("experiments/search", {"max_results": 5, "filter": "name LIKE '%\\'"}),
]


async def test_many_updates_of_one_run_at_once_all_succeed(database_url):
    async with running(database_url, compaction=False) as client:
        run_id = await new_run(client)
        named = [{"key": "mlflow.runName", "value": "renamed"}]
        await asyncio.gather(
            *[call(client, "runs/update", run_id=run_id, status="RUNNING") for _ in range(12)],
            *[call(client, "runs/log-batch", run_id=run_id, tags=named) for _ in range(12)],
        )
        assert (await ask(client, "runs/get", run_id=run_id))["run"]["info"]["run_name"] == "renamed"


async def test_a_rename_does_not_undo_an_end_that_arrives_after_it(database_url):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, Start(experiment="x", name="first", time_ms=1)))
        await call(client, "runs/update", run_id=RUN, run_name="second")
        await post(client, frame(2, Status(status="FINISHED", time_ms=5)))
        info = (await ask(client, "runs/get", run_id=RUN))["run"]["info"]
        assert (info["run_name"], info["status"], info["end_time"]) == ("second", "FINISHED", 5)
        # Who says the status later than that has the last word.
        await call(client, "runs/update", run_id=RUN, status="FAILED")
        await post(client, frame(3, Status(status="FINISHED", time_ms=6)))
        assert (await ask(client, "runs/get", run_id=RUN))["run"]["info"]["status"] == "FAILED"


@pytest.mark.parametrize(("path", "body"), HOSTILE)
async def test_what_postgresql_cannot_take_is_a_mistake_of_the_request_and_no_defect(database_url, path, body):
    async with running(database_url, compaction=False) as client:
        said = await call(client, path, 400, **body)
        assert said["error_code"] == "INVALID_PARAMETER_VALUE"
