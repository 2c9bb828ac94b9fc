"""What a run that has ended still holds, and a call that has failed: nothing, whether or not files were sent."""

import errno
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stepstream import settings
from stepstream.artifacts import leftovers, pending, remote
from stepstream.artifacts.uploader import Uploader
from stepstream.errors import ArtifactError
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


def threads_since(before: list[threading.Thread]) -> list[str]:
    """Those that read and send; who was told to end has a moment for it."""
    until = time.monotonic() + 30
    while True:
        found = [one.name for one in threading.enumerate() if one not in before and one.name.startswith("stepstream-")]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.01)


@pytest.mark.parametrize("refused", ["stepstream-hash", "stepstream-hash-large", "stepstream-artifacts"])
def test_a_system_that_gives_no_thread_is_said_and_nothing_stays_of_that_call(server, made, tmp_path, refused):
    start, before = threading.Thread.start, threading.enumerate()

    def limited(thread: threading.Thread) -> None:
        if thread.name == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        for _ in range(2):
            with pytest.raises(ArtifactError, match=r"no thread that sends it \(can't start new thread\)"):
                made.put_bytes(b"x", "a")
        with pytest.raises(ArtifactError, match="no thread"):
            made.put_stream(io.BytesIO(bytes(2 * 2**20)), "stream")
    assert threads_since(before) == []
    assert (descriptors(tmp_path), made._open_files, made._notes.held, made._streamed.held) == (0, 0, 0, 0)
    assert list((tmp_path / "spool" / "artifacts").iterdir()) == []
    assert made.left() == ()
    assert made.finish(timeout_s=60, still_s=30), "what raised is not waited for"
    assert made.put_bytes(b"y", "b").wait(60)
    assert server.files == {"b": b"y"}


def test_streams_that_get_no_thread_concern_no_other_file(server, made):
    start, given = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if thread.name == "stepstream-stream":
            given.append(thread)
            if len(given) == 2:
                raise RuntimeError("can't start new thread")
        start(thread)

    body = os.urandom(2 * 2**20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(ArtifactError, match="no thread"):
            made.put_stream(io.BytesIO(body), "stream")
        assert made.put_bytes(b"x", "a").wait(60)
    given[0].join(30)
    assert not given[0].is_alive(), "one alone is of no use"
    assert made.put_stream(io.BytesIO(body), "stream").wait(60)
    assert made.finish(timeout_s=60, still_s=30)
    assert server.files == {"a": b"x", "stream": body}


def test_a_name_that_is_too_long_is_said_as_what_cannot_be_logged(made, tmp_path):
    for put in (made.put_file, made.put_directory):
        with pytest.raises(ArtifactError, match="File name too long"):
            put(tmp_path / ("a" * 300), None)


def unnoted(tmp_path: Path, server: ArtifactServer) -> Uploader:
    """One whose spool has room for a copy, and none for its note."""
    loaded = settings.load(
        {}, tracking_uri=server.url, spool_dir=tmp_path / "spool", spool_max_bytes=pending.COPY_BYTES
    )
    made = Uploader(loaded, RUN, 0, Notices())
    (tmp_path / "file").write_bytes(bytes(pending.COPY_BYTES))
    made.put_file(tmp_path / "file", None)
    return made


def spooled(tmp_path: Path) -> list[str]:
    return [path.suffix for path in (tmp_path / "spool" / "artifacts").iterdir()]


def test_a_copy_that_no_note_lists_goes_with_its_run(server, tmp_path):
    server.fault = lambda what: AWAY
    made = unnoted(tmp_path, server)
    assert spooled(tmp_path) == [".data"]
    made.stop()
    assert spooled(tmp_path) == []
    assert made._notes.held == 0
    assert made.left() == ()
    assert len(made.unsaved()) == 1


def test_a_copy_that_no_note_lists_goes_with_what_is_kept_for_later(server, tmp_path):
    server.fault = lambda what: web.Response(status=413) if what == "put" else None
    made = unnoted(tmp_path, server)
    made.finish(timeout_s=60, still_s=30)
    assert "413" in made.failed()[0]
    assert spooled(tmp_path) == []
    made.stop()


def test_a_copy_that_no_note_lists_stays_while_its_thread_may_read_it(server, tmp_path, monkeypatch):
    entered, go_on = threading.Event(), threading.Event()
    enter = remote.Remote.__aenter__

    async def late(self: Any) -> Any:
        entered.set()
        assert go_on.wait(30)
        return await enter(self)

    monkeypatch.setattr(remote.Remote, "__aenter__", late)
    made = unnoted(tmp_path, server)
    assert entered.wait(30)
    made.stop(0.01)
    assert spooled(tmp_path) == [".data"]
    go_on.set()
    made._carrier._thread.join(30)
    assert spooled(tmp_path) == []


def test_a_disk_that_takes_no_note_is_left_no_drafts(server, made, tmp_path, monkeypatch):
    write_text = Path.write_text

    def full(path: Path, said: str) -> int:
        write_text(path, "")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    for number in range(3):
        made.put_bytes(b"x", f"{number}")
    assert made.finish(timeout_s=60, still_s=30)
    assert spooled(tmp_path) == []


def test_what_is_noted_outlives_its_run_with_its_copies(server, made, tmp_path):
    server.fault = lambda what: AWAY
    for number in range(2):
        made.put_bytes(b"x", f"{number}")
    made.stop()
    listed = [file.local for call in leftovers.find(tmp_path / "spool", everything=False) for file in call.files]
    assert len(listed) == 2
    assert all(Path(local).read_bytes() == b"x" for local in listed)


def test_a_directory_without_files_leaves_nothing(server, made, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "link").symlink_to("nowhere")
    assert made.put_directory(tmp_path / "empty", None).wait(60)
    assert made.put_directory(tmp_path / "refused", None).state == "failed"
    assert made.put_bytes(b"x", "a").wait(60)
    assert not made.finish(timeout_s=60, still_s=30), "one was refused"
    assert len(made.failed()) == 1
    assert made._notes.held == 0
    assert spooled(tmp_path) == []
