"""What a run that has ended still holds: nothing, whether or not its files were sent."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stepstream import settings
from stepstream.artifacts import remote
from stepstream.artifacts.uploader import Uploader
from stepstream.notices import Notices
from tests.unit.client.artifact_server import ArtifactServer, running

RUN = "ab" * 16
AWAY = web.Response(status=503, body=b"busy")


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with running() as server:
        yield server


@pytest.fixture
def made(server: ArtifactServer, tmp_path: Path) -> Iterator[Uploader]:
    made = Uploader(settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool"), RUN, 0, Notices())
    yield made
    made.stop()


def descriptors(folder: Path) -> int:
    """Of files below it, that this process has."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            count += Path(os.readlink(f"/proc/self/fd/{number}")).is_relative_to(folder)
        except FileNotFoundError:
            continue  # closed meanwhile, as the one that lists them
    return count


def test_a_run_that_ends_without_its_server_keeps_no_descriptor(server, made, tmp_path):
    server.fault = lambda what: AWAY
    for number in range(5):
        made.put_bytes(b"x", f"{number}")
    assert descriptors(tmp_path) == 5
    made.stop()
    assert descriptors(tmp_path) == 0
    assert len(made.left()) == 5
    assert made._open_files == 0


def test_a_thread_that_ends_late_lets_go_of_them_then(server, made, tmp_path, monkeypatch):
    entered, go_on = threading.Event(), threading.Event()
    enter = remote.Remote.__aenter__

    async def late(self: Any) -> Any:
        entered.set()
        assert go_on.wait(30)
        return await enter(self)

    monkeypatch.setattr(remote.Remote, "__aenter__", late)
    made.put_bytes(b"x", "a")
    assert entered.wait(30)
    made.stop(0.01)
    assert descriptors(tmp_path) == 1, "the thread may be reading it"
    go_on.set()
    made._carrier._thread.join(30)
    assert descriptors(tmp_path) == 0


def test_what_is_logged_once_the_thread_has_failed_is_let_go_of_at_the_end(server, made, tmp_path, monkeypatch):
    async def broken(self: Any) -> Any:
        raise RuntimeError("no more")

    monkeypatch.setattr(remote.Remote, "__aenter__", broken)
    made.put_bytes(b"x", "a")
    made._carrier._thread.join(30)
    assert descriptors(tmp_path) == 0
    made.put_bytes(b"x", "b")
    assert descriptors(tmp_path) == 1
    made.stop()
    assert descriptors(tmp_path) == 0
    assert made.left() == ("a", "b")
