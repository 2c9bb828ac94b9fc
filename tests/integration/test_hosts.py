"""A page in a browser of this machine may neither change what a server keeps nor, by a name of its own, read it."""

import pytest

from stepstream_schema import paths
from tests.integration.app import running

CREATE = "/api/2.0/mlflow/experiments/create"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
FOREIGN = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example", "Content-Type": "text/plain"}


@pytest.mark.parametrize("allowed_hosts", [[], None])
async def test_a_foreign_page_changes_nothing(database_url, allowed_hosts):
    async with running(database_url, compaction=False, allowed_hosts=allowed_hosts) as client:
        for path in (CREATE, paths.FRAMES, "/v1/history"):
            async with client.post(path, data=b'{"name": "theirs"}', headers=FOREIGN) as response:
                assert (response.status, (await response.json())["error_code"]) == (403, "PERMISSION_DENIED")
        async with client.post(CREATE, json={"name": "ours"}, headers={"Sec-Fetch-Site": "same-origin"}) as response:
            assert response.status == 200
        # What is only read it may ask for, as a link does; its browser does not show it the answer.
        async with client.get("/api/2.0/mlflow/experiments/search?max_results=10", headers=FOREIGN) as response:
            assert {one["name"] for one in (await response.json())["experiments"]} == {"Default", "ours"}
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_name_that_is_not_ours_is_answered_where_it_is_allowed_alone(database_url):
    async with running(database_url, compaction=False, allowed_hosts=["tracker.example"]) as client:
        for host, status in {"tracker.example:5000": 200, "localhost": 200, "evil.example": 403}.items():
            for path in (SEARCH, paths.METRICS):
                async with client.get(path, headers={"Host": host}) as response:
                    assert response.status == status, path
        async with client.get(SEARCH, headers={"Host": "evil.example"}) as response:
            assert "--allowed-hosts" in (await response.json())["message"]
        # A load balancer asks by whatever name it likes.
        async with client.get(paths.HEALTH, headers={"Host": "evil.example"}) as response:
            assert response.status == 200
    async with running(database_url) as client, client.get(SEARCH, headers={"Host": "any.example"}) as response:
        assert response.status == 200
