"""What the load benchmark says of lost points is exact."""

import asyncio

from benchmarks.generate import log_in_processes, post_ready_frames
from benchmarks.load import stored_points

from tests.integration.app import fetch, running


async def test_ready_frames_that_were_answered_are_all_counted_and_one_that_is_gone_is_missed(database_url):
    async with running(database_url, compaction=False) as client:
        shape = await post_ready_frames(str(client.make_url("")).rstrip("/"), 10, 10, 0.5)
    assert await stored_points(database_url, shape["run_id"]) == shape["points_acknowledged"] > 0
    # Less than the warm-up stored: it was not seen when only the timed part was compared.
    await fetch(database_url, "DELETE FROM frames WHERE ctid = (SELECT ctid FROM frames WHERE points > 0 LIMIT 1)")
    assert shape["points_acknowledged"] - await stored_points(database_url, shape["run_id"]) == 100


def test_everything_that_was_logged_is_counted_with_the_warm_up(server_factory):
    server = server_factory()
    logged = log_in_processes(server.url, 1, 0.3, 5)
    assert logged["points_logged"] > 2000 * 5
    assert asyncio.run(stored_points(server.database_url, logged["run_id"])) == logged["points_logged"]
