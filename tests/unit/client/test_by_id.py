"""MLFLOW_EXPERIMENT_ID: for a start, which needs no server, and for a question, whose answer must be right."""

import json

import pytest

from stepstream import by_id, settings
from stepstream.errors import QueryError
from tests.unit.client.answering import answering

EXPERIMENT = {
    "experiment_id": 7,
    "name": "vision",
    "artifact_location": "",
    "lifecycle_stage": "active",
    "created_at_ms": 1,
    "updated_at_ms": 1,
    "tags": {},
}


@pytest.fixture
def asked(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    for name in settings.EXPERIMENT_NAMES:
        monkeypatch.delenv(name, raising=False)
    with answering(body=json.dumps(EXPERIMENT).encode()) as server:
        loaded = settings.load({}, tracking_uri=server.uri, token="given", spool_dir=tmp_path)
        yield server, loaded


def test_its_name_is_asked_for_once_with_the_token_that_the_run_was_given(asked):
    server, loaded = asked
    assert [by_id.of_start(loaded), by_id.of_start(loaded), by_id.of_question(loaded)] == ["vision"] * 3
    assert server.asked == [("/v1/experiments/7", "Bearer given")]


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503])
def test_a_job_starts_whatever_the_server_says_of_itself_and_does_not_ask_each_time(asked, caplog, status):
    server, loaded = asked
    server.status = status
    assert [by_id.of_start(loaded), by_id.of_start(loaded)] == [None, None]
    assert len(server.asked) == 1
    (record,) = caplog.records
    assert "belong to the experiment 'Default' instead" in record.getMessage()
    # The answer to a question would be another's runs.
    with pytest.raises(QueryError, match="MLFLOW_EXPERIMENT_ID is '7'"):
        by_id.of_question(loaded)
    server.status = 200
    assert by_id.of_question(loaded) == by_id.of_start(loaded) == "vision"


@pytest.mark.parametrize("status", [400, 404])
def test_an_id_that_is_none_is_refused(asked, status):
    server, loaded = asked
    server.status = status
    for ask in (by_id.of_start, by_id.of_question):
        with pytest.raises(QueryError, match="MLFLOW_EXPERIMENT_ID is '7'") as refused:
            ask(loaded)
        assert refused.value.status == status


def test_a_deleted_one_is_refused(asked):
    server, loaded = asked
    server.body = json.dumps(EXPERIMENT | {"lifecycle_stage": "deleted"}).encode()
    with pytest.raises(QueryError, match="restore_experiment"):
        by_id.of_start(loaded)


def test_a_name_beside_it_counts(asked, monkeypatch):
    server, loaded = asked
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    assert not by_id.is_said()
    assert [by_id.of_start(loaded), by_id.of_question(loaded), server.asked] == [None, None, []]
