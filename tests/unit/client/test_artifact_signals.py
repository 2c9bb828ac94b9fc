"""A signal handler may log, and end the run, wherever the very thread that it interrupts does so."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stepstream import settings
from stepstream.artifacts import pending
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
