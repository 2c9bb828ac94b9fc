"""A token, beside what else a user's machine may say of the server's host."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import stepstream
from stepstream.artifacts.remote import Remote
from stepstream.credentials import held
from stepstream.tracking.client import MlflowClient
from stepstream.transport import Rejected, Transport
from tests.e2e import stored
from tests.e2e.test_sdk import environment
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


def test_the_address_may_hold_a_name_and_password_which_nobody_is_shown(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = server_factory("--token", "p:ss/word")
    address = server.url.replace("http://", "http://bob:p%3Ass%2Fword@")
    script = """
import sys
import stepstream as mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("e")
with mlflow.start_run() as run:
    mlflow.log_metric("a", 1)
    mlflow.log_text("words", "a.txt")
    print(mlflow.get_tracking_uri() == sys.argv[2])
mlflow.set_tracking_uri(mlflow.get_tracking_uri())
mlflow.set_registry_uri(mlflow.get_registry_uri())
client = mlflow.MlflowClient(mlflow.get_tracking_uri())
print(client.get_run(run.run_id).info.status, dict(client.get_run(run.run_id).data.metrics))
client.log_text(run.run_id, "more", "b.txt")
print([open(client.download_artifacts(run.run_id, name)).read() for name in ("a.txt", "b.txt")])
mlflow.set_tracking_uri(sys.argv[1].replace("p%3A", "wrong"))
run = mlflow.start_run(finish_timeout=0.5)
run.log({"a": 1})
run.log_text("words", "a.txt")
print(run.finish().delivered)
try:
    mlflow.get_run(run.run_id)
except mlflow.MlflowException as error:
    print(error.error_code)
"""
    environ = environment(None, tmp_path / "spool")
    command = [sys.executable, "-c", script, address, server.url]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == [
        "True",
        "FINISHED {'a': 1.0}",
        "['words', 'more']",
        "False",
        "UNAUTHENTICATED",
    ], done.stdout + done.stderr
    assert not re.search("ss(%2F|/)word", done.stderr)
    left = [path.read_bytes() for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert left
    assert not re.search(b"ss(%2F|/)word", b"".join(left))
    # What waits says only where it was meant to go; the password is the environment's.
    sync = [sys.executable, "-m", "stepstream.cli", "sync", "--patience", "5"]
    environ |= {"STEPSTREAM_TRACKING_URI": address}
    done = subprocess.run(sync, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 artifacts are stored" in done.stdout


async def test_a_proxy_before_the_embedded_store_is_told_who_comes_and_another_store_is_not() -> None:
    heard: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers.get("Authorization"))
        return web.Response(body=b"12345")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        uri = f"http://127.0.0.1:{server.port}"
        async with Remote(uri, held(uri.replace("//", "//bob:p@"), ())) as remote:
            for url in ("/x", f"http://localhost:{server.port}/x"):
                await remote.get({"url": url, "headers": {}}, 0, 5, lambda _: None)
        async with Remote(uri, "token") as remote:
            await remote.get({"url": "/x", "headers": {}}, 0, 5, lambda _: None)
    assert heard == ["Basic Ym9iOnA=", None, None]
