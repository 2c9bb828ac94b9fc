"""A token, beside what else a user's machine may say of the server's host."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import stepstream
from stepstream.artifacts.remote import Remote
from stepstream.tracking.client import MlflowClient
from stepstream.transport import Rejected, Transport
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


async def test_another_host_that_the_server_sends_on_to_is_not_told_the_token() -> None:
    heard: list[tuple[str, str | None]] = []
    elsewhere = ""

    async def answer(request: web.Request) -> web.Response:
        heard.append((request.url.host or "", request.headers.get("Authorization")))
        if request.url.host == "127.0.0.1":
            raise web.HTTPTemporaryRedirect(elsewhere + request.path)
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        elsewhere = f"http://localhost:{server.port}"
        async with Transport(f"http://127.0.0.1:{server.port}", "secret") as transport:
            with pytest.raises(Rejected):
                await transport.post([b"frame"])
        async with Remote(f"http://127.0.0.1:{server.port}", "secret") as remote:
            assert await remote.call("GET", "/v1/anything") == {}
    assert heard == [("127.0.0.1", "Bearer secret"), ("localhost", None)] * 2
