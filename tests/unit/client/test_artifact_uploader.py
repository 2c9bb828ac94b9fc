"""What becomes of a file when its server, its store or its owner does something wrong."""

import asyncio
import errno
import io
import json
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stepstream import process, settings
from stepstream.artifacts import body, carrier, leftovers, noted, pending, remote, sending, uploader
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.source import FileSource
from stepstream.artifacts.uploader import Uploader
from stepstream.errors import ArtifactError
from stepstream.notices import Notices
from stepstream_schema import limits
from tests.unit.client.artifact_server import ArtifactServer, running

RUN = "ab" * 16
LARGE = limits.SINGLE_PUT_BYTES + 12_345


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with running() as server:
        yield server


@pytest.fixture
def made(server: ArtifactServer, tmp_path: Path) -> Iterator[Uploader]:
    loaded = settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool")
    made = Uploader(loaded, RUN, 0, Notices())
    yield made
    made.stop()


def written(path: Path, size: int) -> bytes:
    content = os.urandom(size)
    path.write_bytes(content)
    return content


def spooled(tmp_path: Path) -> list[str]:
    return spooled_in(tmp_path / "spool" / "artifacts")


def spooled_in(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def note(folder: Path, server: ArtifactServer, *files: pending.PendingFile) -> None:
    """As a process that is dead has left it."""
    owner = replace(process.current(), pid=2**22 + 1)
    call = pending.PendingCall(
        note=folder / "t.json", tracking_uri=server.url, run_id=RUN, rank=None, owner=owner, files=files
    )
    pending.replace_note(call.note, pending.text(call))


def times(count: int, what: str, answer: web.Response) -> Callable[[str], web.Response | None]:
    left = [count]

    def fault(asked: str) -> web.Response | None:
        if asked != what or not left[0]:
            return None
        left[0] -= 1
        return answer

    return fault


EXPIRED = web.Response(status=403, body=b"<Code>ExpiredToken</Code>")
AWAY = web.Response(status=503, body=b"busy")


def test_a_store_that_refuses_for_a_while_costs_neither_the_file_nor_its_copy(server, made, tmp_path):
    server.fault = times(6, "put", EXPIRED)
    began = time.monotonic()
    handle = made.put_bytes(b"only here", "notes.txt")
    while server.asked.count("put") < 3:
        time.sleep(0.01)
    assert spooled(tmp_path) == [".data", ".json"]
    assert handle.wait(60), handle.errors
    assert time.monotonic() - began > 0.5
    assert server.files == {"notes.txt": b"only here"}
    assert server.asked.count("announce") == 7
    assert spooled(tmp_path) == []


def test_what_sync_could_not_send_stays_noted_with_its_copy(server, tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "AGAIN_S", 0.01)
    folder = pending.folder(tmp_path)
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"t-{name}.data").write_bytes(name.encode())
    files = [
        pending.PendingFile(
            path=name, local=str(folder / f"t-{name}.data"), content_type="a/b", logged_at_ms=1, is_ours=True
        )
        for name in ("a", "b", "gone")
    ]
    note(folder, server, *files)

    def deliver() -> tuple[int, list[str]]:
        (call,) = pending.read_all(folder)
        return asyncio.run(leftovers.deliver(call, server.url, None))

    server.fault = lambda what: EXPIRED if what == "put" else None
    stored, problems = deliver()
    assert (stored, len(problems)) == (0, 3)
    (call,) = pending.read_all(folder)
    assert [file.path for file in call.files] == ["a", "b"]
    assert all(Path(file.local).exists() for file in call.files)
    server.fault = lambda what: None
    assert deliver() == (2, [])
    assert server.files == {"a": b"a", "b": b"b"}
    assert list(folder.iterdir()) == []


def test_an_answer_that_the_file_will_never_do_is_final_and_said(server, made, tmp_path):
    refused = web.json_response({"files": [{"state": "refused", "code": "X", "message": "no such path"}]})
    server.fault = lambda what: refused if what == "announce" else None
    handle = made.put_bytes(b"x", "a.txt")
    assert not handle.wait(30)
    assert made.failed() == ("a.txt: no such path",)
    assert spooled(tmp_path) == []


def test_a_pipe_is_read_to_its_end_however_little_it_gives_at_a_time(server, made):
    content = os.urandom(3_000_000)
    out, into = os.pipe()

    def write() -> None:
        with open(into, "wb", buffering=0) as file:
            file.writelines(content[start : start + 50_000] for start in range(0, len(content), 50_000))

    threading.Thread(target=write).start()
    with open(out, "rb", buffering=0) as file:
        assert made.put_stream(file, "piped").wait(60)
    assert server.files == {"piped": content}


def test_logging_a_pipe_does_not_wait_for_what_is_written_to_it(server, made):
    out, into = os.pipe()
    with open(out, "rb") as file:
        handle = made.put_stream(file, "piped")
        other = made.put_bytes(b"other", "other.txt")
        assert other.wait(30)
        os.write(into, b"at last")
        os.close(into)
        assert handle.wait(30)
    assert server.files["piped"] == b"at last"


@pytest.mark.parametrize("size", [0, 1, limits.PART_BYTES, limits.PART_BYTES + 1, 4 * limits.PART_BYTES])
def test_streams_of_every_length_arrive_whole(server, made, size):
    content = os.urandom(size)

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert made.put_stream(Unseekable(content), "s").wait(60)
    assert server.files == {"s": content}


class Breaks(io.RawIOBase):
    """Gives some bytes, and then what a file gives that was closed."""

    def __init__(self, before: int) -> None:
        self._left = before

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise ValueError("I/O operation on closed file")
        self._left -= size
        return bytes(size)


@pytest.mark.parametrize("before", [2**20, limits.PART_BYTES * 3])
def test_a_stream_that_breaks_fails_alone(server, made, before):
    handles = [made.put_stream(Breaks(before), f"broken-{number}") for number in range(5)]
    assert [handle.wait(30) for handle in handles] == [False] * 5
    assert "closed file" in handles[0].errors[0]
    assert made.put_bytes(b"x", "good").wait(30)
    content = os.urandom(limits.PART_BYTES * 4)
    assert made.put_stream(io.BytesIO(content), "whole").wait(30)
    assert sorted(server.files) == ["good", "whole"]


def test_a_link_that_is_relative_keeps_what_it_leads_to(server, made, tmp_path):
    content = written(tmp_path / "weights-7.bin", LARGE)
    (tmp_path / "latest.bin").symlink_to("weights-7.bin")
    server.fault = lambda what: AWAY
    handle = made.put_file(tmp_path / "latest.bin", None)
    (call,) = pending.read_all(tmp_path / "spool" / "artifacts")
    assert Path(call.files[0].local).read_bytes() == content
    assert not Path(call.files[0].local).is_symlink()
    server.fault = lambda what: None
    made.hurry()
    assert handle.wait(60)
    assert server.files == {"latest.bin": content}


@pytest.mark.parametrize("what", ["announce", "sign", "put", "complete"])
def test_a_stream_outlasts_a_server_that_is_away(server, made, what):
    content = os.urandom(3 * limits.PART_BYTES + 5)
    server.fault = times(3, what, AWAY)
    assert made.put_stream(io.BytesIO(content), "s").wait(60)
    assert server.files == {"s": content}


def test_a_stream_whose_completion_was_not_heard_is_stored_all_the_same(server, made):
    lost = iter([True])
    server.lose_answer = lambda what: what == "complete" and next(lost, False)
    content = os.urandom(3 * limits.PART_BYTES)
    handle = made.put_stream(io.BytesIO(content), "s")
    assert handle.wait(60), handle.errors
    assert server.files == {"s": content}


def test_completing_again_sends_nothing_again(server, made, tmp_path):
    content = written(tmp_path / "large", LARGE)
    server.fault = times(3, "complete", AWAY)
    assert made.put_file(tmp_path / "large", None).wait(60)
    assert server.files == {"large": content}
    assert server.asked.count("put") == 3
    assert server.asked.count("announce") == 1


def test_many_threads_share_one_uploader_thread_and_lose_no_handle(server, made):
    together, before = threading.Barrier(16), threading.enumerate()
    handles: list[Any] = []

    def log(number: int) -> None:
        together.wait()
        handles.extend(made.put_bytes(b"%d %d" % (number, again), f"{number}/{again}") for again in range(5))

    threads = [threading.Thread(target=log, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = [one.name for one in threading.enumerate() if one not in before]
    assert begun.count("stepstream-artifacts") == 1
    assert made.finish(timeout_s=60, still_s=30)
    assert all(handle.state == "stored" for handle in handles)
    assert len(server.files) == 80
    assert made.left() == ()


def test_what_is_logged_after_the_end_is_said_and_leaves_nothing(server, made, tmp_path):
    made.put_bytes(b"x", "a").wait(30)
    made.stop()
    with pytest.raises(ArtifactError, match="finished"):
        made.put_bytes(b"y", "b")
    assert spooled(tmp_path) == []


@pytest.mark.parametrize("is_stored", [False, True])
def test_what_a_thread_that_ends_late_has_is_anybodys_at_once(server, made, tmp_path, monkeypatch, is_stored):
    held, go_on = threading.Event(), threading.Event()
    waits = noted.Noted if is_stored else remote.Remote
    name = "forget" if is_stored else "__aenter__"
    original = getattr(waits, name)

    def late(self: Any) -> Any:
        held.set()
        assert go_on.wait(30)
        return original(self)

    monkeypatch.setattr(waits, name, late)
    made.put_bytes(b"only here", "notes.txt")
    assert held.wait(30)
    made.stop(0.01)
    (call,) = pending.read_all(pending.folder(tmp_path / "spool"))
    assert is_stored == ("notes.txt" in server.files)
    assert (call.owner is None) is not is_stored, "what is stored already is not left"
    go_on.set()
    made._carrier._thread.join(30)
    assert spooled(tmp_path) == ([] if is_stored else [".data", ".json"])


def test_a_store_that_takes_nothing_more_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(body, "SILENT_S", 0.3)
    written(tmp_path / "large", LARGE)
    with socket.create_server(("127.0.0.1", 0)) as deaf, running() as server:
        deaf.settimeout(10)
        signed = {"state": "put", "upload_id": "0", "method": "PUT", "headers": {}}
        signed |= {"url": f"http://127.0.0.1:{deaf.getsockname()[1]}/"}
        answer = web.json_response({"files": [signed]})
        server.fault = lambda what: answer if what == "announce" else None
        loaded = settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool")
        made = Uploader(loaded, RUN, 0, Notices())
        made.put_file(tmp_path / "large", None)
        tries = [deaf.accept() for _ in range(2)]
        assert made.left() == ("large",)
        assert server.asked.count("announce") == 2
        made.stop()
    for connection, _ in tries:
        connection.close()


def test_finish_waits_while_a_file_is_hashed(server, made, tmp_path, monkeypatch):
    written(tmp_path / "large", LARGE)
    preadv = os.preadv

    def slow(*arguments: Any) -> int:
        time.sleep(0.03)
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", slow)
    made.put_file(tmp_path / "large", None)
    assert made.finish(timeout_s=60, still_s=0.8)


def test_finish_waits_while_parts_are_read_for_what_the_store_checks(server, made, tmp_path, monkeypatch):
    server.checksum = "sha256"
    written(tmp_path / "large", LARGE)
    digest = FileSource.digest

    def slow(self: FileSource, *arguments: Any) -> str:
        time.sleep(0.6)
        return digest(self, *arguments)

    monkeypatch.setattr(FileSource, "digest", slow)
    made.put_file(tmp_path / "large", None)
    assert made.finish(timeout_s=60, still_s=1.2)
    assert server.files.keys() == {"large"}


def test_finish_waits_while_the_server_completes_a_large_file_and_not_for_ever(server, made, tmp_path, monkeypatch):
    def logged(times: int) -> None:
        """As far as the server is asked to complete it; on a slow machine that alone may stand still for a while."""
        written(tmp_path / "large", LARGE)
        server.gates["complete"] = threading.Event()
        made.put_file(tmp_path / "large", None)
        while server.asked.count("complete") < times:
            time.sleep(0.01)

    monkeypatch.setattr(sending, "COMPLETED_BYTES_PER_S", LARGE / 20)
    logged(1)
    threading.Timer(1.5, server.gates["complete"].set).start()
    assert made.finish(timeout_s=60, still_s=0.4)
    monkeypatch.setattr(sending, "COMPLETED_BYTES_PER_S", LARGE / 2)
    began = time.monotonic()
    logged(2)
    assert not made.finish(timeout_s=60, still_s=0.4)
    assert 2 < time.monotonic() - began < 20
    assert made.left() == ("large",)


def test_sending_the_same_again_and_again_is_no_progress(server, made):
    server.fault = lambda what: EXPIRED if what == "put" else None
    made.put_bytes(bytes(5_000_000), "a")
    began = time.monotonic()
    assert not made.finish(timeout_s=60, still_s=1)
    assert time.monotonic() - began < 20


def test_a_small_file_passes_large_ones_and_blocked_streams(server, made, tmp_path):
    for number in range(carrier.LARGE_AT_ONCE + 1):
        written(tmp_path / f"large-{number}", LARGE)
        made.put_file(tmp_path / f"large-{number}", None)
    pipes = [os.pipe() for _ in range(3)]
    files = [os.fdopen(out, "rb") for out, _ in pipes]
    for number, file in enumerate(files):
        made.put_stream(file, f"pipe-{number}")
    server.gates["sign"] = threading.Event()
    small = made.put_bytes(b"small", "small.txt")
    assert small.wait(30)
    for _, into in pipes:
        os.close(into)
    server.gates["sign"].set()
    assert made.finish(timeout_s=60, still_s=30)
    for file in files:
        file.close()


def test_many_small_files_are_announced_in_few_requests(server, made, tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(300):
        (tmp_path / "many" / f"{number}").write_text(f"{number}")
    server.gates["announce"] = threading.Event()
    handle = made.put_directory(tmp_path / "many", None)
    time.sleep(0.5)
    server.gates["announce"].set()
    assert handle.wait(60)
    assert len(server.files) == 300
    assert server.asked.count("announce") < 60


def test_md5_is_told_to_stores_that_ask_for_it_and_to_no_others(server, made):
    assert made.put_bytes(b"a", "a").wait(30)
    assert server.announced[-1][0]["md5"] == ""
    server.wants_md5 = True
    for name in ("b", "c"):
        assert made.put_bytes(name.encode(), name).wait(30)
    assert [said[0]["md5"] != "" for said in server.announced] == [False, False, True, True]
    assert server.files == {"a": b"a", "b": b"b", "c": b"c"}


def test_an_unexpected_error_concerns_its_file_alone_and_its_copy_stays(server, made, tmp_path):
    server.fault = times(1, "announce", web.json_response({"files": [{"state": "put"}]}))
    handle = made.put_bytes(b"x", "a")
    assert not handle.wait(30)
    assert spooled(tmp_path) == [".data", ".json"]
    assert made.put_bytes(b"y", "b").wait(30)


def test_what_is_logged_while_a_directory_is_being_noted_is_newer_than_all_of_it(server, made, tmp_path, monkeypatch):
    (tmp_path / "tree").mkdir()
    for number in range(20):
        (tmp_path / "tree" / f"{number:02}").write_text(f"tree {number}")
    keep = pending.keep

    def meanwhile(directory: Path, token: str, number: int, *arguments: Any, **options: Any) -> Path | None:
        if number == 10:
            made.put_bytes(b"meanwhile", "15")
        return keep(directory, token, number, *arguments, **options)

    monkeypatch.setattr(pending, "keep", meanwhile)
    made.put_directory(tmp_path / "tree", None)
    assert made.finish(timeout_s=60, still_s=30)
    times_of = {file["path"]: file["logged_at_ms"] for said in server.announced for file in said}
    (of_the_tree,) = {at for path, at in times_of.items() if path != "15"}
    newest = max(
        (file for said in server.announced for file in said if file["path"] == "15"),
        key=lambda file: file["logged_at_ms"],
    )
    assert newest["size"] == len(b"meanwhile")
    assert newest["logged_at_ms"] > of_the_tree


TOO_LARGE = web.Response(status=413, body=b"<html><center>nginx</center></html>")


@pytest.mark.parametrize("kind", ["whole", "parts", "stream"])
def test_a_proxy_that_takes_no_such_body_fails_that_file_alone_and_says_what_it_must_take(server, made, tmp_path, kind):
    server.fault = lambda what: TOO_LARGE if what == "put" else None
    if kind == "stream":
        handle = made.put_stream(io.BytesIO(bytes(2 * limits.PART_BYTES)), "large")
    else:
        written(tmp_path / "large", LARGE if kind == "parts" else 2 * 2**20)
        handle = made.put_file(tmp_path / "large", None)
    assert not handle.wait(30)
    (said,) = handle.errors
    assert "413" in said
    assert "client_max_body_size 64m" in said
    assert server.url in said
    assert made.failed() == (said,)
    puts = server.asked.count("put")
    server.fault = lambda what: None
    assert made.put_bytes(b"small", "small").wait(30)
    assert server.asked.count("put") == puts + 1, "what failed is not sent again"
    assert spooled(tmp_path) == ([] if kind == "stream" else [".data", ".json"]), "stepstream sync may send it"


def test_sync_says_what_a_proxy_must_take_and_keeps_the_file(server, tmp_path):
    folder = pending.folder(tmp_path)
    folder.mkdir()
    (folder / "t.data").write_bytes(b"x")
    file = pending.PendingFile(path="a", local=str(folder / "t.data"), content_type="a/b", logged_at_ms=1, is_ours=True)
    note(folder, server, file)
    (call,) = pending.read_all(folder)
    server.fault = lambda what: TOO_LARGE if what == "put" else None
    stored, problems = asyncio.run(leftovers.deliver(call, server.url, None))
    assert (stored, server.asked.count("put")) == (0, 1)
    assert "client_max_body_size 64m" in problems[0]
    assert spooled_in(folder) == [".data", ".json"]


def test_to_log_one_more_file_costs_the_same_however_many_wait(server, made, monkeypatch):
    server.fault = lambda what: AWAY
    looks = [0]
    done = Upload.done.fget
    assert done is not None

    def counted(handle: Upload) -> bool:
        looks[0] += 1
        return done(handle)

    monkeypatch.setattr(Upload, "done", property(counted))
    looked = []
    for _ in range(3):
        before = looks[0]
        for number in range(50):
            made.put_bytes(b"x", f"{number}.txt")
        looked.append(looks[0] - before)
    assert looked[2] <= looked[0]


def test_files_that_wait_are_bounded_in_number_and_what_is_more_is_counted_and_said(
    server, made, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(uploader, "MAX_WAITING", 5)
    server.fault = lambda what: AWAY
    (tmp_path / "tree").mkdir()
    for number in range(4):
        written(tmp_path / "tree" / f"{number}", 10)
    taken = [made.put_bytes(b"x", "text"), made.put_directory(tmp_path / "tree", "tree")]
    dropped = [
        made.put_bytes(b"y", "more"),
        made.put_file(tmp_path / "tree" / "0", "more"),
        made.put_directory(tmp_path / "tree", "more"),
        made.put_stream(io.BytesIO(b"z"), "more"),
    ]
    assert [handle.state for handle in dropped] == ["failed"] * 4
    assert all("5 files wait already" in handle.errors[0] for handle in dropped)
    assert caplog.text.count("was not logged") == 1
    assert len(spooled(tmp_path)) == 2 + 5, "the notes of two calls, and five copies"
    server.fault = lambda what: None
    assert not made.finish(timeout_s=60, still_s=30)
    assert [handle.state for handle in taken] == ["stored"] * 2
    assert len(made.failed()) == 4
    assert made.put_bytes(b"y", "more").wait(30)


def test_notes_and_copies_count_towards_the_bound_of_the_spool(server, tmp_path, caplog):
    most = 2**20
    loaded = settings.load(
        {}, tracking_uri=server.url, spool_dir=tmp_path / "spool", spool_max_bytes=most, buffer_bytes=2**16
    )
    made = Uploader(loaded, RUN, 0, Notices())
    server.fault = lambda what: AWAY
    written(tmp_path / "file", 300_000)
    bodies = {f"text-{number}": os.urandom(300_000) for number in range(3)}
    handles = [made.put_bytes(body, path) for path, body in bodies.items()]
    handles.append(made.put_file(tmp_path / "file", None))
    small = [made.put_bytes(os.urandom(60_000), f"small-{number}") for number in range(9)]
    dropped = [handle for handle in small if handle.state == "failed"]
    folder = tmp_path / "spool" / "artifacts"
    assert most - 120_000 < sum(path.stat().st_size for path in folder.iterdir()) <= most
    assert not [handle for handle in handles if handle.state == "failed"]
    assert 0 < len(dropped) < 9
    assert "STEPSTREAM_SPOOL_MAX_BYTES" in dropped[0].errors[0]
    assert caplog.text.count("was not logged") == 1
    server.fault = lambda what: None
    made.finish(timeout_s=60, still_s=30)
    assert all(handle.state == "stored" for handle in handles)
    assert made.failed() == tuple(handle.errors[0] for handle in dropped)
    assert made._notes.held == 0
    assert spooled(tmp_path) == []
    made.stop()


def test_streams_in_memory_that_wait_are_bounded_and_others_go_by_way_of_the_spool(server, tmp_path, caplog):
    loaded = settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool", buffer_bytes=5 * 2**20)
    made = Uploader(loaded, RUN, 0, Notices())
    server.fault = lambda what: AWAY
    bodies = {f"{number}": os.urandom(2 * 2**20 + number) for number in range(4)}
    handles = [made.put_stream(io.BytesIO(body), path) for path, body in bodies.items()]
    assert spooled(tmp_path) == [".data"] * 2 + [".json"] * 2
    assert made._streamed.held == len(bodies["0"]) + len(bodies["1"])
    text = "größe" * 500_000
    handles.append(made.put_stream(io.StringIO(text), "text"))
    assert len(spooled(tmp_path)) == 6
    server.fault = lambda what: None
    assert made.finish(timeout_s=60, still_s=30)
    assert all(handle.done for handle in handles)
    assert server.files == bodies | {"text": text.encode()}
    assert made._streamed.held == 0
    # A large one alone is taken as it is: its owner has that memory anyway.
    large = os.urandom(7 * 2**20)
    server.fault = lambda what: AWAY
    alone = made.put_stream(io.BytesIO(large), "large")
    written(tmp_path / "file", 2 * 2**20)
    with (tmp_path / "file").open("rb") as file:
        on_disk = made.put_stream(file, "file")
        assert spooled(tmp_path) == [], "neither this one, nor what lies on a disk, needs another place"
        server.fault = lambda what: None
        made.hurry()
        assert alone.wait(60)
        assert on_disk.wait(60)
    assert server.files["large"] == large
    assert "not logged" not in caplog.text
    made.stop()


def test_streams_beyond_the_bound_that_no_disk_takes_are_counted_and_said(server, tmp_path, caplog):
    (tmp_path / "spool").write_text("no directory")
    loaded = settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool", buffer_bytes=2**21)
    made = Uploader(loaded, RUN, 0, Notices())
    server.fault = lambda what: AWAY
    body = os.urandom(3 * 2**20)
    handles = [made.put_stream(io.BytesIO(body), f"{number}") for number in range(3)]
    assert [handle.state for handle in handles[1:]] == ["failed"] * 2
    assert "could not be kept" in handles[1].errors[0]
    assert caplog.text.count("was not logged") == 1
    server.fault = lambda what: None
    assert not made.finish(timeout_s=60, still_s=30)
    assert len(made.failed()) == 2
    assert server.files == {"0": body}
    made.stop()


def test_files_that_wait_as_file_objects_hold_nothing_of_themselves_in_memory(server, made, tmp_path):
    body = written(tmp_path / "file", 2 * 2**20)
    server.fault = lambda what: AWAY
    files = [(tmp_path / "file").open("rb") for _ in range(20)]
    tracemalloc.start()
    handles = [made.put_stream(file, f"{number}") for number, file in enumerate(files)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two of them have their turn meanwhile.
    assert held < 10 * 2**20
    server.fault = lambda what: None
    made.hurry()
    assert all(handle.wait(60) for handle in handles)
    assert set(server.files.values()) == {body}
    for file in files:
        file.close()


def test_a_file_that_its_disk_does_not_give_fails_alone_and_stays_noted(server, made, tmp_path, monkeypatch):
    monkeypatch.setattr(carrier, "AGAIN_S", 0.01)
    written(tmp_path / "broken", 1000)
    written(tmp_path / "good", 2000)
    pread = os.pread

    def bad_sector(file: int, size: int, at: int) -> bytes:
        if size == 1000:
            raise OSError(errno.EIO, "Input/output error")
        return pread(file, size, at)

    monkeypatch.setattr(os, "pread", bad_sector)
    broken, good = (made.put_file(tmp_path / name, None) for name in ("broken", "good"))
    assert good.wait(30)
    assert not broken.wait(30)
    (said,) = broken.errors
    assert "cannot be read" in said
    assert "Input/output error" in said
    assert server.files.keys() == {"good"}
    assert spooled(tmp_path) == [".data", ".json"]


def rewrite(path: Path) -> bytes:
    """In place, some time ago: nobody waits until it is still."""
    with path.open("r+b") as file:
        file.write(b"later")
    os.utime(path, (1, 1))
    return path.read_bytes()


def test_a_file_that_is_rewritten_while_it_waits_is_stored_whole_and_said_to_be(server, made, tmp_path, caplog):
    server.fault = lambda what: AWAY
    written(tmp_path / "large", LARGE)
    kept = written(tmp_path / "kept", LARGE)
    small = written(tmp_path / "small", 1000)
    rewritten = made.put_file(tmp_path / "large", None)
    others = [made.put_file(tmp_path / name, None) for name in ("kept", "small")]
    later = rewrite(tmp_path / "large")
    rewrite(tmp_path / "small")
    server.fault = lambda what: None
    made.hurry()
    assert rewritten.wait(60)
    assert all(other.wait(60) for other in others)
    assert server.files == {"large": later, "kept": kept, "small": small}
    assert [handle.rewritten for handle in (rewritten, *others)] == [1, 0, 0]
    assert caplog.text.count("was written to after it was logged") == 1
    assert "large was written to" in caplog.text


def test_sync_says_what_was_written_to_after_it_was_logged(server, made, tmp_path, caplog):
    server.fault = lambda what: AWAY
    written(tmp_path / "large", LARGE)
    small = written(tmp_path / "small", 0)
    for name in ("large", "small"):
        made.put_file(tmp_path / name, None)
    made.stop()
    later = rewrite(tmp_path / "large")
    server.fault = lambda what: None
    for call in pending.read_all(tmp_path / "spool" / "artifacts"):
        assert asyncio.run(leftovers.deliver(call, server.url, None)) == (1, [])
    assert server.files == {"large": later, "small": small}
    assert caplog.text.count("was written to after it was logged") == 1
    assert spooled(tmp_path) == []


def test_notes_of_older_versions_are_read_and_older_versions_read_these(server, made, tmp_path):
    server.fault = lambda what: AWAY
    made.put_bytes(b"x", "a.txt")
    made.stop()
    (note,) = (tmp_path / "spool" / "artifacts").glob("*.json")
    said = json.loads(note.read_text())
    assert said["files"][0].keys() == {"path", "local", "content_type", "logged_at_ms", "is_ours"}
    del said["versions"]
    note.write_text(json.dumps(said))
    (call,) = pending.read_all(note.parent)
    server.fault = lambda what: None
    assert asyncio.run(leftovers.deliver(call, server.url, None)) == (1, [])
    assert server.files == {"a.txt": b"x"}


def test_what_is_written_to_while_it_is_copied_is_not_kept_half_and_half(tmp_path, monkeypatch):
    written(tmp_path / "state", 1000)
    copy = pending.shutil.copyfile

    def meanwhile(source: Path, target: Path) -> Any:
        copy(source, target)
        rewrite(source)

    monkeypatch.setattr(pending.shutil, "copyfile", meanwhile)
    (tmp_path / "spool").mkdir()
    assert pending.keep(tmp_path / "spool", "t", 0, tmp_path / "state", min_free_bytes=0) is None
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_could_not_be_noted_is_not_said_to_lie_in_the_spool(server, tmp_path):
    (tmp_path / "spool").write_text("no directory")
    loaded = settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool")
    made = Uploader(loaded, RUN, 0, Notices())
    server.fault = lambda what: AWAY
    written(tmp_path / "large", LARGE)
    made.put_file(tmp_path / "large", None)
    assert not made.finish(timeout_s=0.2, still_s=0.2)
    assert made.left() == ()
    assert "nothing but this process has it" in made.unsaved()[0]
    made.stop()
