"""Small deciders of the server: admission, authorisation, configuration."""

import argparse
import asyncio
import base64
import json
import os
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest import config, supervisor
from stepstream_ingest.admission import Admission
from stepstream_ingest.artifacts.stores import root
from stepstream_ingest.auth import authorised
from stepstream_ingest.data_dir import DataDir
from stepstream_ingest.errors import ServerSetupError
from stepstream_ingest.hearing import Hearing
from stepstream_ingest.postgres import given as given_postgres
from stepstream_ingest.worker_config import WorkerConfig


@given(st.lists(st.integers(1, 60)))
def test_the_bounds_are_kept_but_for_one_request_that_finds_nothing_else(sizes):
    admission = Admission(max_bytes=50, max_requests=3)
    held: list[int] = []
    for size in sizes:
        if admission.try_admit(size):
            held.append(size)
        elif held:
            admission.release(held.pop(0))
        assert (admission.bytes, admission.requests) == (sum(held), len(held))
        assert len(held) <= 3
        assert len(held) == 1 or sum(held) <= 50
    for size in held:
        admission.release(size)
    assert (admission.bytes, admission.requests) == (0, 0)


def test_the_token_is_taken_as_bearer_and_as_the_password_of_basic():
    basic = base64.b64encode(b"me:secret").decode()
    assert authorised("Bearer secret", ["secret"])
    assert authorised("bearer secret", ["secret"])
    assert authorised(f"Basic {basic}", ["new", "secret"])
    for wrong in (
        "",
        "Bearer",
        "Bearer Secret",
        "Basic secret",
        f"Basic {basic}x",
        "Digest secret",
        "Bearer sécret",
        "Bearer \udcff",
    ):
        assert not authorised(wrong, ["secret", "other"])


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    return parser.parse_args(arguments)


def test_every_problem_is_reported_at_once():
    with pytest.raises(ServerSetupError) as caught:
        config.load(parsed("--host", "0.0.0.0", "--port", "99999", "--workers", "0", "--database-url", "mysql://x"), {})
    assert all(word in str(caught.value) for word in ("STEPSTREAM_TOKEN", "--port", "--workers", "postgresql://"))


def test_beyond_this_machine_only_with_a_token_or_said_to_be_insecure():
    assert config.load(parsed("--host", "0.0.0.0"), {"STEPSTREAM_TOKEN": "t"}).token == "t"
    assert config.load(parsed(), {"STEPSTREAM_TOKEN": "t", "STEPSTREAM_OLD_TOKENS": "u v\n"}).old_tokens == ["u", "v"]
    with pytest.raises(ServerSetupError, match="set STEPSTREAM_TOKEN"):
        config.load(parsed(), {"STEPSTREAM_OLD_TOKENS": "u"})
    assert config.load(parsed("--host", "0.0.0.0", "--insecure"), {}).token is None
    assert config.load(parsed("--host", "::1"), {}).host == "::1"
    with pytest.raises(ServerSetupError, match="--insecure"):
        config.load(parsed("--host", "example.org"), {})


def test_a_machine_with_more_cores_than_workers_are_allowed_starts_as_many_as_are(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 400)
    assert config.load(parsed(), {}).workers == config.MAX_WORKERS
    with pytest.raises(ServerSetupError, match="--workers"):
        config.load(parsed("--workers", "400"), {})


def test_a_stamp_that_was_never_written_to_its_end_is_written_again(tmp_path):
    stamp = tmp_path / "format.json"
    for said in ("", "\n", None):
        if said is not None:
            stamp.write_text(said)
        with DataDir(tmp_path):
            assert json.loads(stamp.read_text()) == {"format": 1}
        stamp.unlink()


@pytest.mark.parametrize("said", ['{"format": ', "[]", '{"format": "new"}', "{}"])
def test_a_stamp_that_says_something_else_is_said_and_left_and_locks_nobody_out(tmp_path, said):
    stamp = tmp_path / "format.json"
    stamp.write_text(said)
    with pytest.raises(ServerSetupError, match=r"format\.json cannot be read"), DataDir(tmp_path):
        pass
    assert stamp.read_text() == said
    stamp.unlink()
    with DataDir(tmp_path):
        pass


@given(st.integers(1, 2000), st.integers(1, 256))
def test_the_workers_together_never_open_more_connections_than_are_allowed(allowed, workers):
    try:
        each = given_postgres.connections_each(allowed, workers)
    except ServerSetupError as error:
        assert workers * given_postgres.MIN_PER_WORKER + given_postgres.SPARE > allowed
        most = re.search(r"--workers (\d+)", str(error))
        assert most is None or given_postgres.connections_each(allowed, int(most[1])) >= given_postgres.MIN_PER_WORKER
        return
    assert each * workers + given_postgres.SPARE <= allowed
    assert given_postgres.MIN_PER_WORKER <= each <= given_postgres.MAX_PER_WORKER


def test_a_postgresql_that_is_too_old_is_refused_with_its_version():
    given_postgres.require_version(14)
    with pytest.raises(ServerSetupError, match="PostgreSQL 13, and StepStream needs 14"):
        given_postgres.require_version(13)


class Recovering:
    """A cluster whose PostgreSQL replays its log: a fake, as that takes as long as it likes."""

    is_running = False

    async def start(self) -> None:
        await asyncio.sleep(60)

    def keep_log_short(self) -> None:
        pass


class NoWorkers:
    def revive(self) -> None:
        pass


async def test_a_server_that_is_told_to_stop_does_not_wait_for_postgresql_to_come_back():
    stop = asyncio.Event()
    watching = asyncio.create_task(supervisor._watch(stop, NoWorkers(), Recovering()))
    await asyncio.sleep(0.5)
    assert not watching.done()
    stop.set()
    await asyncio.wait_for(watching, 2)
    assert watching.done()


def test_a_worker_is_told_what_its_supervisor_knows():
    told = WorkerConfig(
        dsn="postgresql://", token="t", worker=3, artifact_root=root.parse("s3://b/p"), artifact_secret="ab"
    )
    assert WorkerConfig.from_json(told.to_json()) == told


def test_what_one_worker_did_not_hear_counts_for_all(tmp_path, monkeypatch):
    # A clock of its own: between two looks at the real one any time may pass.
    moment = [100]
    monkeypatch.setattr("stepstream_ingest.hearing.time", SimpleNamespace(monotonic=lambda: float(moment[0])))
    one, other, alone = (Hearing(path) for path in (tmp_path / "unheard", tmp_path / "unheard", None))
    moment[0] += 50
    assert [hearing.lasts_s() for hearing in (one, other, alone)] == [50] * 3
    one.interrupted()
    assert [hearing.lasts_s() for hearing in (one, other, alone)] == [0, 0, 50]
    moment[0] += 5
    later = Hearing(tmp_path / "unheard")
    assert [hearing.lasts_s() for hearing in (one, other, later)] == [5, 5, 0]
    for hearing in (one, other, alone, later):
        hearing.close()
