"""A signal handler may log, and end the run, wherever the very thread that it interrupts does so."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stepstream import settings
from stepstream.artifacts import carrier, pending
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.readers import Readers
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
def made(server: ArtifactServer, tmp_path: Path) -> Uploader:
    return Uploader(settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool"), RUN, 0, Notices())


def ends(what: Callable[[], Any]) -> bool:
    """Whether it does; who waits for itself would keep the tests for ever."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    thread.join(30)
    return not thread.is_alive()


def test_a_handler_that_ends_the_run_while_its_notes_are_left_does_not_wait_for_itself(
    server, made, tmp_path, monkeypatch, caplog
):
    server.fault = lambda what: AWAY
    for name in ("a", "b"):
        made.put_bytes(b"only here", name)
    replace, handled = Path.replace, []

    def interrupted(draft: Path, note: Path) -> Any:
        if not handled:
            handled.append(draft)
            made.stop()
        return replace(draft, note)

    monkeypatch.setattr(Path, "replace", interrupted)
    assert ends(made.stop)
    assert handled
    left = list(pending.read_all(pending.folder(tmp_path / "spool")))
    assert [(call.owner, call.files[0].path) for call in left] == [(None, "a"), (None, "b")]
    assert "what is left can be sent once" not in caplog.text


def test_a_handler_that_logs_while_the_first_file_starts_the_thread_starts_no_second_one(server, made, monkeypatch):
    stream, before = os.urandom(2 * 2**20), threading.enumerate()
    started: list[Readers] = []
    handles: list[Upload] = []

    def interrupted() -> Readers:
        readers = Readers()
        started.append(readers)
        if len(started) == 1:
            handles.append(made.put_bytes(b"handler", "text"))
            handles.append(made.put_stream(io.BytesIO(stream), "stream"))
        return readers

    monkeypatch.setattr(carrier, "Readers", interrupted)
    handles.append(made.put_bytes(b"first", "first"))
    names = [one.name for one in threading.enumerate() if one not in before]
    assert names.count("stepstream-artifacts") == 1
    assert len(started) == 1
    assert made.finish(timeout_s=60, still_s=30)
    assert [handle.state for handle in handles] == ["stored"] * 3
    assert server.files == {"first": b"first", "text": b"handler", "stream": stream}
    made.stop()
