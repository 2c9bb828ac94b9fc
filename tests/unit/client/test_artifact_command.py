"""What `stepstream artifacts` says and how it ends, when something goes wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from stepstream.cli import main
from tests.unit.client.artifact_server import ArtifactServer, running

RUN = "ab" * 16
AWAY = web.Response(status=503, body=b"busy")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactServer]:
    monkeypatch.setenv("STEPSTREAM_SPOOL_DIR", str(tmp_path / "spool"))
    with running() as server:
        monkeypatch.setenv("STEPSTREAM_TRACKING_URI", server.url)
        yield server


def test_what_could_neither_be_sent_nor_noted_is_said_and_no_success(server, tmp_path, capsys):
    (tmp_path / "spool").write_text("no directory")
    (tmp_path / "file").write_text("x")
    server.fault = lambda what: AWAY
    assert main(["artifacts", "put", RUN, str(tmp_path / "file"), "--patience", "0.3"]) == 1
    said = capsys.readouterr()
    assert "not stored: file: " in said.err
    assert "1 files could neither be sent nor noted in the spool; put them again" in said.err
    assert "0 files are stored" in said.out


def test_what_was_not_sent_in_time_and_is_noted_is_left_to_sync(server, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    server.fault = lambda what: AWAY
    assert main(["artifacts", "put", RUN, str(tmp_path / "file"), "--patience", "0.3"]) == 1
    said = capsys.readouterr()
    assert "1 files could not be sent in time; stepstream sync sends them later" in said.err
    assert "neither" not in said.err


def test_only_what_is_stored_is_counted_as_stored(server, tmp_path, capsys):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "good").write_text("x")
    for number in range(3):
        (tmp_path / "tree" / f"bad-{number}").symlink_to("nowhere")
    assert main(["artifacts", "put", RUN, str(tmp_path / "tree")]) == 1
    said = capsys.readouterr()
    assert said.err.count("not stored: ") == 3
    assert said.out.splitlines()[-1] == "1 files are stored"
    assert server.files == {"good": b"x"}


@pytest.mark.usefixtures("server")
def test_a_name_that_is_too_long_is_said_without_a_traceback(capsys):
    assert main(["artifacts", "put", RUN, "a" * 300]) == 1
    assert "cannot be read: File name too long" in capsys.readouterr().err
