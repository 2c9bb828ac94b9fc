"""A token, beside what else a user's machine may say of the server's host."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import stepstream
from stepstream.tracking.client import MlflowClient
from tests.e2e import stored
from tests.servers import ServerProcess


@pytest.mark.parametrize("line", ["default login bob password x", "machine 127.0.0.1 login bob password x"])
async def test_a_token_counts_though_netrc_knows_the_host(
    server_factory: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    server = server_factory("--token", "secret")
    (tmp_path / "netrc").write_text(line)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    # As a secret that is mounted as a file is read into a variable.
    monkeypatch.setenv("STEPSTREAM_TOKEN", "secret\n")
    run = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path / "spool")
    run.log({"loss": 1.0}, step=0)
    run.log_text("words", "a.txt")
    report = run.finish(timeout=30)
    assert (report.delivered, report.artifacts_left, report.artifacts_failed) == (True, (), ())
    assert await stored.count(server.database_url, run.run_id) == 1
    stepstream.download_artifacts(run.run_id, "", tmp_path / "down", tracking_uri=server.url)
    assert (tmp_path / "down" / "a.txt").read_text() == "words"
    assert MlflowClient(server.url).get_run(run.run_id).info.status == "FINISHED"


async def test_without_a_token_netrc_says_who_asks(
    server_factory: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_factory("--token", "secret")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anybody password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert "STEPSTREAM_TOKEN" not in os.environ
    run = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path / "spool")
    run.log({"loss": 1.0}, step=0)
    assert run.finish(timeout=30).delivered
    assert await stored.count(server.database_url, run.run_id) == 1
