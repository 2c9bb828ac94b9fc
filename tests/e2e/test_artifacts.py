"""Files of a run, sent by real processes to a real server and a real object store."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stepstream
from stepstream.errors import ArtifactError
from stepstream_schema import limits
from tests.e2e.proxy import in_thread
from tests.servers import ServerProcess, free_port
from tests.stores import BUCKET, seaweedfs

PART = limits.PART_BYTES


class Place:
    """A run of the test's own on a server that others may use, too."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.url = process.url
        self.port = process.port
        self.run_id = os.urandom(16).hex()


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, initialised_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], ServerProcess]]:
    """A server for each store, for those who look only at their own run."""
    started: dict[str, ServerProcess] = {}

    def find(store: str) -> ServerProcess:
        if store not in started:
            directory, options, environ = tmp_path_factory.mktemp(store) / "server", (), {}
            shutil.copytree(initialised_directory, directory)
            if store == "s3":
                environ = request.getfixturevalue("s3_environment")
                options = ("--artifact-root", f"s3://{BUCKET}/{os.urandom(4).hex()}")
            with pytest.MonkeyPatch.context() as patch:
                for name, value in environ.items():
                    patch.setenv(name, value)
                started[store] = ServerProcess(directory, *options)
        return started[store]

    yield find
    for server in started.values():
        server.stop()


@pytest.fixture(params=["embedded", "s3"])
def server(request: pytest.FixtureRequest, shared: Callable[[str], ServerProcess]) -> Place:
    return Place(shared(request.param))


@pytest.fixture
def own(server_factory: Callable[..., ServerProcess]) -> Callable[..., Place]:
    """A server of the test's own."""
    return lambda *options: Place(server_factory(*options))


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEPSTREAM_SPOOL_DIR", str(tmp_path / "spool"))
    return tmp_path / "spool"


def start(server: Place, **settings: Any) -> stepstream.Run:
    return stepstream.start_run(tracking_uri=server.url, run_id=server.run_id, **settings)


def write(path: Path, size: int) -> bytes:
    body = os.urandom(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return body


def listed(server: Place, path: str = "") -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{server.url}/v1/runs/{server.run_id}/artifacts?recursive=1&path={path}") as response:
        return {file["path"]: file for file in json.loads(response.read())["files"]}


def test_files_directories_texts_and_streams_come_back_as_they_were(server, tmp_path, spool):
    small = write(tmp_path / "ckpt" / "config.json", 1000)
    large = write(tmp_path / "ckpt" / "shards" / "weights.bin", 3 * PART + 12345)
    write(tmp_path / "ckpt" / "empty", 0)
    stream = os.urandom(PART + 777)
    with start(server) as run:
        single = run.log_artifact(tmp_path / "ckpt" / "config.json")
        run.log_artifacts(tmp_path / "ckpt", "checkpoints/1")
        run.log_artifact(io.BytesIO(stream), "streams/a.bin")
        run.log_artifact(io.StringIO("größe"), "streams/b.txt")
        run.log_text("hello", "notes/a.md")
        assert single.wait(60)
        assert single.state == "stored"
    report = run.finish()
    assert report.delivered
    assert report.artifacts_left == ()
    files = listed(server)
    assert {path: file["size"] for path, file in files.items()} == {
        "checkpoints/1/config.json": 1000,
        "checkpoints/1/empty": 0,
        "checkpoints/1/shards/weights.bin": len(large),
        "config.json": 1000,
        "notes/a.md": 5,
        "streams/a.bin": len(stream),
        "streams/b.txt": 7,
    }
    assert files["config.json"]["content_type"] == "application/json"
    there = run.download_artifacts("", tmp_path / "down")
    assert (there / "config.json").read_bytes() == small
    assert (there / "checkpoints/1/shards/weights.bin").read_bytes() == large
    assert (there / "streams/a.bin").read_bytes() == stream
    assert (there / "streams/b.txt").read_text() == "größe"
    one = run.download_artifacts("checkpoints/1/shards", tmp_path / "one")
    assert one == tmp_path / "one" / "checkpoints/1/shards"
    assert [path.name for path in one.iterdir()] == ["weights.bin"]
    assert list((spool / "artifacts").iterdir()) == []


def test_what_is_removed_right_after_it_was_logged_is_stored(server, tmp_path):
    body = write(tmp_path / "plot.png", 5000)
    large = write(tmp_path / "big.bin", limits.SINGLE_PUT_BYTES + 5)
    with start(server) as run:
        run.log_artifact(tmp_path / "plot.png")
        run.log_artifact(tmp_path / "big.bin")
        (tmp_path / "plot.png").unlink()
        (tmp_path / "big.bin").unlink()
    assert run.finish().delivered
    there = run.download_artifacts("", tmp_path / "down")
    assert (there / "plot.png").read_bytes() == body
    assert (there / "big.bin").read_bytes() == large


def test_names_as_long_as_they_can_be_come_back(own, tmp_path):
    server = own()
    name = "ä" * 127 + "x"
    body = write(tmp_path / name, PART + 1)
    with start(server) as run:
        run.log_artifact(tmp_path / name)
    assert (run.download_artifacts(name, tmp_path / "down")).read_bytes() == body
    assert [path.name for path in (tmp_path / "down").iterdir()] == [name]


def test_what_failed_is_in_the_report_and_nothing_is_said_to_lie_in_the_spool(own, tmp_path, caplog):
    server = own()
    write(tmp_path / "tree" / "good", 10)
    (tmp_path / "tree" / "out").symlink_to(tmp_path)
    run = start(server)
    run.log_artifacts(tmp_path / "tree")
    report = run.finish()
    assert not report.delivered
    assert report.artifacts_left == ()
    (failed,) = report.artifacts_failed
    assert "leaves" in failed
    assert "1 artifacts were not stored" in caplog.text
    assert "they lie in" not in caplog.text


def test_a_store_that_checks_md5_is_told_it(own, azure_environment, tmp_path, monkeypatch):
    for name, value in azure_environment.items():
        monkeypatch.setenv(name, value)
    server = own("--artifact-root", f"azure://{BUCKET}/{os.urandom(4).hex()}")
    small = write(tmp_path / "small", 1000)
    large = write(tmp_path / "large", limits.SINGLE_PUT_BYTES + 5)
    with start(server) as run:
        for name in ("small", "large"):
            run.log_artifact(tmp_path / name)
        run.log_text("another", "another")
    assert run.finish().delivered
    there = run.download_artifacts("", tmp_path / "down")
    assert [(there / name).read_bytes() for name in ("small", "large", "another")] == [small, large, b"another"]


def test_the_newer_of_two_files_of_one_path_stays(server, tmp_path):
    with start(server) as run:
        for number in range(20):
            run.log_text(f"state {number}", "last.txt")
    assert run.download_artifacts("last.txt", tmp_path).read_text() == "state 19"


def test_links_that_leave_the_directory_and_bad_paths_are_refused_alone(server, tmp_path):
    write(tmp_path / "secret", 10)
    write(tmp_path / "tree" / "inside", 10)
    (tmp_path / "tree" / "same").symlink_to(tmp_path / "tree" / "inside")
    (tmp_path / "tree" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "tree" / "up").symlink_to(tmp_path)
    (tmp_path / "tree" / "bad\nname").write_text("x")
    run = start(server)
    handle = run.log_artifacts(tmp_path / "tree")
    handle.wait(60)
    assert handle.state == "failed"
    assert len(handle.errors) == 3
    for bad in ("../x", "/etc", "a//b", "a/../b", "nul\0", "x" * 300, "back\\slash"):
        with pytest.raises(ArtifactError):
            run.log_text("x", bad)
    with pytest.raises(ArtifactError):
        run.log_artifact(tmp_path / "none")
    with pytest.raises(ArtifactError):
        run.log_artifact(io.BytesIO(b"x"))
    run.finish()
    assert sorted(listed(server)) == ["inside", "same"]


def test_a_file_that_is_rewritten_while_it_waits_is_stored_as_one_of_its_states(server, tmp_path):
    path = tmp_path / "state.bin"
    first = write(path, limits.SINGLE_PUT_BYTES + 100)
    with start(server) as run:
        handle = run.log_artifact(path)
        second = bytes(reversed(first))
        path.write_bytes(second)
        handle.wait(60)
    assert handle.state == "stored", handle.errors
    # Who rewrites a file this way empties it first, and that is one of its states, too.
    assert run.download_artifacts("state.bin", tmp_path / "down").read_bytes() in (first, b"", second)


SHARD = """
import os, sys
import stepstream
run = stepstream.start_run(tracking_uri=sys.argv[1], run_id=sys.argv[2])
run.log({"loss": 1.0}, step=0)
run.log_artifacts(sys.argv[3], "ckpt")
report = run.finish()
assert report.delivered, report
"""


def test_eight_ranks_make_one_tree(server, tmp_path):
    bodies, processes = {}, []
    for rank in range(8):
        folder = tmp_path / f"rank{rank}"
        bodies[f"ckpt/shard-{rank}.bin"] = write(folder / f"shard-{rank}.bin", 2_000_000)
        (folder / "config.json").write_text("{}")
        environ = os.environ | {"RANK": str(rank), "WORLD_SIZE": "8", "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-c", SHARD, server.url, server.run_id, str(folder)]
        processes.append(subprocess.Popen(command, env=environ))
    assert [process.wait(120) for process in processes] == [0] * 8
    files = listed(server)
    assert sorted(files) == sorted([*bodies, "ckpt/config.json"])
    for path, body in bodies.items():
        assert files[path]["sha256"] == hashlib.sha256(body).hexdigest()
        assert files[path]["rank"] == int(path.removesuffix(".bin").rpartition("-")[2])


ONE = """
import sys
import stepstream
run = stepstream.start_run(tracking_uri=sys.argv[1], run_id=sys.argv[2])
handle = run.log_artifact(sys.argv[3])
print("logged", flush=True)
handle.wait()
print(handle.bytes_sent, handle.state, flush=True)
run.finish()
"""


def parts_there(server: Place, body: bytes, path: str) -> int:
    """Parts that the store has of an upload that is not complete."""
    said = {
        "path": path,
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "logged_at_ms": 1,
    }
    request = urllib.request.Request(
        f"{server.url}/v1/runs/{server.run_id}/artifacts/uploads",
        json.dumps({"files": [said]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        (answer,) = json.loads(response.read())["files"]
    return len(answer["have"])


@pytest.mark.parametrize("way", ["logged again", "sync"])
def test_a_killed_client_sends_only_what_is_missing(own, tmp_path, spool, way):
    server = own()
    body = write(tmp_path / "weights.bin", 20 * PART + 5)
    part = limits.part_bytes(len(body))
    assert part > PART
    with in_thread(server.port) as slow:
        # Some parts arrive, and never all of them, however late this test looks.
        slow.hold_after = len(body) * 2 // 3
        command = [sys.executable, "-c", ONE, slow.url, server.run_id, str(tmp_path / "weights.bin")]
        first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while slow.bytes_passed < slow.hold_after or not parts_there(server, body, "weights.bin"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        first.send_signal(signal.SIGKILL)
        first.wait()
    there = parts_there(server, body, "weights.bin")
    assert 0 < there < -(-len(body) // part)
    if way == "sync":
        uri = ["--tracking-uri", server.url]
        subprocess.run([sys.executable, "-m", "stepstream.cli", "sync", *uri, str(spool)], check=True)
        assert list((spool / "artifacts").iterdir()) == []
    else:
        command[3] = server.url
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert out[2] == "stored"
        assert int(out[1]) == len(body) - there * part
    assert listed(server)["weights.bin"]["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_killed_server_is_waited_for(own, tmp_path):
    server = own()
    body = write(tmp_path / "weights.bin", 20 * PART)
    with in_thread(server.port) as slow:
        slow.hold_after = len(body) // 2
        run = stepstream.start_run(tracking_uri=slow.url, run_id=server.run_id)
        handle = run.log_artifact(tmp_path / "weights.bin")
        while handle.bytes_sent < 5 * PART:
            time.sleep(0.01)
        server.process.kill()
        slow.hold_after = 0
        time.sleep(1)
        assert not handle.done
        server.process.restart()
        assert handle.wait(120), handle.errors
        assert run.finish().delivered
    assert listed(server)["weights.bin"]["sha256"] == hashlib.sha256(body).hexdigest()


def test_metrics_go_on_while_the_store_is_away_and_the_rest_is_named_and_delivered_later(
    own, tmp_path, spool, monkeypatch
):
    store = tmp_path / "s3"
    with seaweedfs(store) as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        server = own("--artifact-root", f"s3://{BUCKET}/x")
    write(tmp_path / "weights.bin", 1000)
    run = start(server)
    handle = run.log_artifact(tmp_path / "weights.bin")
    run.log({"loss": 1.0}, step=0)
    assert run.flush(30)
    assert not handle.done
    report = run.finish(timeout=2)
    assert not report.delivered
    assert report.points_left == 0
    assert report.artifacts_left == ("weights.bin",)
    (note,) = (spool / "artifacts").glob("*.json")
    assert server.run_id in note.read_text()


def test_what_a_run_that_has_ended_leaves_is_delivered_though_its_process_lives_on(server, tmp_path, spool):
    body = write(tmp_path / "weights.bin", 3_000_000)
    run = stepstream.start_run(tracking_uri=f"http://127.0.0.1:{free_port()}", run_id=server.run_id)
    run.log_artifact(tmp_path / "weights.bin")
    assert run.finish(timeout=1).artifacts_left == ("weights.bin",)
    command = [sys.executable, "-m", "stepstream.cli", "sync", "--tracking-uri", server.url, str(spool)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert listed(server)["weights.bin"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert not list((spool / "artifacts").iterdir())


MEMORY = """
import resource, sys, time
import stepstream
run = stepstream.start_run(tracking_uri=sys.argv[1], run_id=sys.argv[2])
run.log({"x": 1.0}, step=0)
run.log_text("warm", "warm.txt").wait(60)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[4] == "file":
    handles = [run.log_artifact(sys.argv[3], "big")]
else:
    count = int(sys.argv[4])
    handles = [run.log_artifact(open(sys.argv[3], "rb"), f"big/stream-{number}") for number in range(count)]
assert all(handle.wait(120) for handle in handles), [handle.errors for handle in handles]
run.finish()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("way", "megabytes"), [("file", 200), ("1", 200), ("5", 40)])
def test_memory_stays_bounded_whatever_the_size_and_number_of_files(server, tmp_path, way, megabytes):
    write(tmp_path / "big.bin", megabytes * 2**20)
    command = [sys.executable, "-c", MEMORY, server.url, server.run_id, str(tmp_path / "big.bin"), way]
    grown_kib = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=150).stdout)
    assert grown_kib < 64 * 1024
    assert stepstream.download_artifacts(server.run_id, "big", tmp_path / "down", tracking_uri=server.url).is_dir()


def test_the_command_line_lists_fetches_sends_and_removes(server, tmp_path):
    body = write(tmp_path / "dir" / "a.bin", 1000)
    write(tmp_path / "dir" / "b" / "c.txt", 10)
    run = start(server)
    run.finish()

    def artifacts(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stepstream.cli", "artifacts", "--tracking-uri", server.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert artifacts("put", server.run_id, str(tmp_path / "dir"), "model").stdout == "2 files are stored\n"
    assert [line.split()[-1] for line in artifacts("ls", server.run_id, "model").stdout.splitlines()] == [
        "model/a.bin",
        "model/b/",
    ]
    assert artifacts("get", server.run_id, "model/a.bin", "-o", str(tmp_path / "o")).returncode == 0
    assert (tmp_path / "o/model/a.bin").read_bytes() == body
    assert "1 files were removed" in artifacts("rm", server.run_id, "model/a.bin").stdout
    assert artifacts("get", server.run_id, "model/a.bin").returncode == 1
    assert artifacts("put", "ab" * 16, str(tmp_path / "dir")).returncode == 1


def test_a_pipe_that_gives_a_little_at_a_time_is_stored_whole(server: Place) -> None:
    body = os.urandom(3_000_000)
    readable, writable = os.pipe()
    writer = threading.Thread(target=lambda: (write_all(writable, body), os.close(writable)))
    writer.start()
    with start(server) as run, open(readable, "rb", buffering=0) as pipe:
        upload = run.log_artifact(pipe, "piped.bin")
        assert upload.wait(60), upload.errors
    writer.join()
    assert listed(server)["piped.bin"]["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_stream_that_breaks_takes_no_other_file_with_it(server: Place, tmp_path: Path) -> None:
    body = write(tmp_path / "good.bin", 5000)
    with start(server) as run:
        broken = io.BytesIO(os.urandom(2 * PART))
        upload = run.log_artifact(broken, "broken.bin")
        broken.close()
        later = run.log_artifact(tmp_path / "good.bin")
        assert later.wait(60), later.errors
        assert not upload.wait(60)
        assert "broken.bin" in upload.errors[0]
        assert "closed file" in upload.errors[0]
    assert {path: file["size"] for path, file in listed(server).items()} == {"good.bin": len(body)}


def test_the_file_that_a_relative_link_leads_to_is_stored(server: Place, tmp_path: Path) -> None:
    body = write(tmp_path / "checkpoints" / "epoch=3.ckpt", 2 * 2**20)
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to("epoch=3.ckpt")
    with start(server) as run:
        assert run.log_artifact(tmp_path / "checkpoints" / "last.ckpt").wait(60)
        assert run.log_artifacts(tmp_path / "checkpoints", "all").wait(60)
    found = listed(server)
    assert sorted(found) == ["all/epoch=3.ckpt", "all/last.ckpt", "last.ckpt"]
    assert {file["sha256"] for file in found.values()} == {hashlib.sha256(body).hexdigest()}


def test_a_stream_whose_completion_did_not_reach_the_server_is_completed_later(
    own: Callable[..., Place],
) -> None:
    server, body = own(), os.urandom(PART + 5)
    with in_thread(server.port) as proxy:
        run = stepstream.start_run(tracking_uri=proxy.url, run_id=server.run_id)
        proxy.drop, proxy.drops = b"/complete HTTP", 2
        upload = run.log_artifact(io.BytesIO(body), "stream.bin")
        assert upload.wait(90), upload.errors
        run.finish()
        assert proxy.drops == 0
    assert listed(server)["stream.bin"]["sha256"] == hashlib.sha256(body).hexdigest()


def test_what_is_logged_last_by_a_script_that_never_finishes_is_stored(server: Place, tmp_path: Path) -> None:
    script = """
import io, os, sys, stepstream
run = stepstream.start_run(tracking_uri=sys.argv[1], run_id=sys.argv[2])
run.log({"loss": 1.0}, step=1)
run.log_text("last words", "last.txt")
run.log_artifact(io.BytesIO(os.urandom(3_000_000)), "last.bin")
"""
    subprocess.run([sys.executable, "-c", script, server.url, server.run_id], check=True, timeout=60)
    assert {path: file["size"] for path, file in listed(server).items()} == {"last.txt": 10, "last.bin": 3_000_000}


def write_all(descriptor: int, body: bytes) -> None:
    for at in range(0, len(body), 50_000):
        os.write(descriptor, body[at : at + 50_000])
