"""The contract that other tests are held against sees what it should."""

from tests.integration import contract
from tests.integration.app import RUN, frame, post, running, start


async def test_the_contract_sees_bodies_and_answers(database_url, monkeypatch):
    seen = []
    monkeypatch.setattr(contract.Contract, "_match", lambda self, what, shape, value: seen.append((what, value)))
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start()))
        said = {"metrics": [{"key": "a", "value": 1.5}]}
        async with client.post(f"/v1/runs/{RUN}/log", json=said) as response:
            assert response.status == 200, await response.text()
    assert ("body of POST /v1/runs/{run_id}/log", said) in seen
    assert "answer of POST /v1/runs/{run_id}/log" in [what for what, _ in seen]
