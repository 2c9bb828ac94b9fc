"""What is downloaded, where several do so at once and where files change meanwhile."""

import asyncio
import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stepstream import backoff, settings
from stepstream.artifacts import arriving
from stepstream.artifacts.download import download
from stepstream.errors import ArtifactError
from stepstream.settings import Settings
from stepstream_schema import limits
from tests.unit.client.artifact_server import ArtifactServer, running

RUN = "ab" * 16
LARGE = 2 * limits.PART_BYTES + 12_345
DOWNLOAD = """
import sys
from pathlib import Path
from stepstream import settings
from stepstream.artifacts.download import download
print(download(settings.load({}, tracking_uri=sys.argv[1]), sys.argv[2], "", Path(sys.argv[3])))
"""


AWAY = web.Response(status=503, body=b"busy")


def nth(number: int, what: str, answer: web.Response) -> Callable[[str], web.Response | None]:
    """That answer to the question of this number, from 1 on."""
    asked = itertools.count(1)
    return lambda said: answer if said == what and next(asked) == number else None


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with running() as server:
        yield server


@pytest.fixture
def loaded(server: ArtifactServer, tmp_path: Path) -> Settings:
    return settings.load({}, tracking_uri=server.url, spool_dir=tmp_path / "spool")


def side_by_side(loaded: Settings, place: Path, count: int) -> list[Any]:
    """What became of so many downloads to one place."""
    ended: list[Any] = []

    def one() -> None:
        try:
            ended.append(download(loaded, RUN, "", place))
        except ArtifactError as error:
            ended.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_threads_and_processes_that_fetch_the_same_do_not_meet(server, loaded, tmp_path):
    server.files = {"large": os.urandom(LARGE), "dir/small": os.urandom(1000)}
    place = tmp_path / "down"
    command = [sys.executable, "-c", DOWNLOAD, server.url, RUN, str(place)]
    server.gates["get"] = threading.Event()
    others = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    threading.Timer(1.0, server.gates["get"].set).start()
    ended = side_by_side(loaded, place, 4)
    assert ended == [place] * 4
    assert [other.wait(60) for other in others] == [0, 0]
    assert {path: (place / path).read_bytes() for path in server.files} == server.files
    assert sorted(path.name for path in place.rglob("*")) == ["dir", "large", "small"]


def test_who_fetches_beside_another_that_fails_is_not_concerned(server, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(arriving, "PATIENCE_TRIES", 0)
    server.files = {"large": os.urandom(LARGE)}
    place = tmp_path / "down"
    server.fault = nth(2, "get", AWAY)
    ended = side_by_side(loaded, place, 3)
    assert sum(isinstance(one, ArtifactError) for one in ended) == 1
    assert (place / "large").read_bytes() == server.files["large"]
    download(loaded, RUN, "", place)
    assert [path.name for path in place.iterdir()] == ["large"]


def test_what_has_arrived_is_gone_on_with_and_what_killed_ones_left_is_removed(server, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(arriving, "PATIENCE_TRIES", 0)
    monkeypatch.setattr(arriving, "RANGES_AT_ONCE", 1)
    server.files = {"large": os.urandom(LARGE)}
    place = tmp_path / "down"
    place.mkdir()
    left = place / ".stepstream-0123456789abcdef-0123456789abcdef.part"
    left.write_bytes(b"left")
    download(loaded, RUN, "", place)
    assert left.exists(), "it may be another host's, whose locks do not reach here"
    os.utime(left, (1, 1))
    (place / "large").unlink()
    server.fault = nth(2, "get", AWAY)
    with pytest.raises(ArtifactError, match="what has arrived is kept"):
        download(loaded, RUN, "", place)
    asked = server.asked.count("get")
    download(loaded, RUN, "", place)
    assert server.asked.count("get") - asked == 2, "the first part was there"
    assert (place / "large").read_bytes() == server.files["large"]
    assert [path.name for path in place.iterdir()] == ["large"]


def test_ranges_that_meet_the_same_trouble_side_by_side_are_each_as_patient_as_one(
    server, loaded, tmp_path, monkeypatch
):
    for name in ("FIRST_S", "MAX_S"):
        monkeypatch.setattr(backoff, name, 0.02)
    at_once = arriving.RANGES_AT_ONCE
    server.files = {"large": os.urandom(at_once * limits.PART_BYTES)}
    away = 3 * at_once
    assert away > arriving.PATIENCE_TRIES + 1
    asked = itertools.count(1)
    server.fault = lambda what: AWAY if what == "get" and next(asked) <= away else None
    download(loaded, RUN, "", tmp_path / "down")
    assert server.asked.count("get") == away + at_once
    assert (tmp_path / "down" / "large").read_bytes() == server.files["large"]


GONE = web.Response(status=403, body=b"<Code>ExpiredToken</Code>")


@pytest.mark.parametrize("hashed", [True, False])
def test_what_is_logged_anew_before_it_is_fetched_is_fetched_as_it_is_now(server, loaded, tmp_path, hashed):
    server.hashed = hashed
    server.files = {"state": os.urandom(1000)}
    newer = os.urandom(LARGE)

    def log_again(what: str) -> None:
        if what == "urls":
            server.files["state"] = newer

    server.fault = log_again
    download(loaded, RUN, "", tmp_path / "down")
    assert (tmp_path / "down" / "state").read_bytes() == newer


@pytest.mark.parametrize("hashed", [True, False])
def test_what_is_logged_anew_while_it_is_fetched_is_one_of_its_states(server, loaded, tmp_path, monkeypatch, hashed):
    monkeypatch.setattr(arriving, "RANGES_AT_ONCE", 1)
    server.hashed = hashed
    server.files = {"state": os.urandom(LARGE)}
    newer = os.urandom(LARGE)
    refuse = nth(2, "get", GONE)

    def log_again(what: str) -> web.Response | None:
        answer = refuse(what)
        if answer is not None:
            server.files["state"] = newer
        return answer

    server.fault = log_again
    download(loaded, RUN, "", tmp_path / "down")
    assert (tmp_path / "down" / "state").read_bytes() == newer
    assert [path.name for path in (tmp_path / "down").iterdir()] == ["state"]


def test_what_is_logged_anew_all_the_time_is_said_to_be(server, loaded, tmp_path):
    server.files = {"state": b"first"}

    def log_again(what: str) -> web.Response | None:
        if what != "get":
            return None
        server.files["state"] = os.urandom(5)
        return GONE

    server.fault = log_again
    with pytest.raises(ArtifactError, match="logged anew 8 times"):
        download(loaded, RUN, "", tmp_path / "down")


def test_an_old_signature_alone_is_no_other_state(server, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(arriving, "RANGES_AT_ONCE", 1)
    server.hashed = False
    server.files = {"state": os.urandom(LARGE)}
    server.fault = nth(2, "get", GONE)
    download(loaded, RUN, "", tmp_path / "down")
    assert (tmp_path / "down" / "state").read_bytes() == server.files["state"]
    assert server.asked.count("get") == 4, "each part once, and one twice"


def test_a_path_that_is_a_file_and_a_directory_is_named_and_the_rest_is_fetched(server, loaded, tmp_path):
    server.files = {"a": b"file", "a/b": b"below", "a/c/d": b"further", "z": b"other", "a.txt": b"no parent"}
    with pytest.raises(ArtifactError, match="files and directories at once") as raised:
        download(loaded, RUN, "", tmp_path / "down")
    said = str(raised.value)
    assert "'a'" in said
    assert "all 4 others are fetched" in said
    assert f"{server.url}/v1/runs/{RUN}/artifacts/content?path=a" in said
    found = {str(path.relative_to(tmp_path / "down")) for path in (tmp_path / "down").rglob("*") if path.is_file()}
    assert found == {"a/b", "a/c/d", "z", "a.txt"}
    download(loaded, RUN, "a/c", tmp_path / "alone")
    assert (tmp_path / "alone" / "a" / "c" / "d").read_bytes() == b"further"


def test_a_directory_that_lies_where_a_file_goes_is_said_with_its_name(server, loaded, tmp_path):
    server.files = {"a": b"file"}
    (tmp_path / "down" / "a").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"down/a cannot be written: it is a directory"):
        download(loaded, RUN, "", tmp_path / "down")
    server.files = {"b/c": b"file"}
    (tmp_path / "down" / "b").write_text("was a file")
    with pytest.raises(ArtifactError, match=r"down/b/c cannot be written: .*down/b"):
        download(loaded, RUN, "", tmp_path / "down")
    assert sorted(path.name for path in (tmp_path / "down").iterdir()) == ["a", "b"]


def test_a_place_that_cannot_be_made_is_said_with_what_is_in_the_way(server, loaded, tmp_path):
    server.files = {"a": b"x"}
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ArtifactError, match=r"cannot be made: .* is in the way"):
            download(loaded, RUN, "", place)
    with pytest.raises(ArtifactError, match="cannot be made: File name too long"):
        download(loaded, RUN, "", tmp_path / ("a" * 300))


def test_a_process_without_descriptors_is_told_so(server, loaded, tmp_path, monkeypatch):
    def none_left(_: asyncio.Runner) -> asyncio.Runner:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(asyncio.Runner, "__enter__", none_left)
    with pytest.raises(ArtifactError, match=r"cannot be fetched: .*Too many open files"):
        download(loaded, RUN, "", tmp_path)


def test_a_target_that_cannot_be_looked_at_is_said_with_its_name(server, loaded, tmp_path):
    server.files = {"a": b"x"}

    def stale(path: Path) -> bool:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "is_symlink", stale)
        with pytest.raises(ArtifactError, match="a cannot be written: Stale file handle"):
            download(loaded, RUN, "", tmp_path)


def test_a_disk_that_is_full_is_told_at_once_and_is_no_trouble_with_the_network(server, loaded, tmp_path, monkeypatch):
    server.files = {"a": b"x" * 1000}

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ArtifactError, match="a cannot be written: No space left on device"):
        download(loaded, RUN, "", tmp_path)
    assert server.asked.count("get") == 1


def test_what_a_disk_takes_piece_by_piece_arrives_whole(server, loaded, tmp_path, monkeypatch):
    server.hashed = False  # or else the hash would tell
    server.files = {"a": os.urandom(100_000)}
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, piece, at: pwrite(file, piece[:30_000], at))
    download(loaded, RUN, "", tmp_path)
    assert (tmp_path / "a").read_bytes() == server.files["a"]
