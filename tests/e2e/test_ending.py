"""How runs begin badly, and how they end: what is left is counted, said, and lies where the report says."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stepstream
from stepstream.errors import ArtifactError
from stepstream.report import FinishReport
from stepstream.run import CLOSE_S, Run
from stepstream.sealer import Sealer
from stepstream.spool import adoption
from stepstream.spool.segment import read_entries, read_header
from stepstream.writer import Writer
from stepstream_schema import frame as wire
from stepstream_schema.records import Matrix, Ragged, Record, Start, Status, Tags
from tests.e2e import stored
from tests.servers import free_port


def spooled(directory: Path) -> Iterator[Record]:
    """Every record that lies in a spool."""
    for path in sorted(adoption.find_segments(directory)):
        with path.open("rb") as file:
            read_header(file)
            for entry in read_entries(file):
                yield from wire.decode(entry.payload).records


def statuses(directory: Path) -> list[str]:
    """By event time."""
    said = [record for record in spooled(directory) if isinstance(record, Status)]
    return [record.status for record in sorted(said, key=lambda record: record.time_ms)]


def points(directory: Path) -> int:
    return sum(record.points for record in spooled(directory) if isinstance(record, Matrix | Ragged))


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Run]:
    """Starts runs whose server is away."""

    def start(**options: object) -> Run:
        said = {"tracking_uri": f"http://127.0.0.1:{free_port()}", "spool_dir": tmp_path / "spool", **options}
        return stepstream.start_run(**said)  # type: ignore[arg-type]

    return start


def test_a_run_lives_whatever_its_name_and_its_user_are(start, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("USER", "caf\udce9")
    run = start(run_name="train\0\udce9.py")
    run.log({"loss": 1.0}, step=0)
    report = run.finish(timeout=0.3)
    assert report.points_left == 1
    (said,) = [record for record in spooled(tmp_path / "spool") if isinstance(record, Start)]
    assert (said.name, said.user) == (run.name, "caf?")
    assert run.name == "train\ufffd?.py"
    assert caplog.text.count("a name cannot be stored as it is") == 1


class OnDevice:
    """A scalar of a device that hangs: JAX's, as far as the client looks."""

    __module__ = "jax.hanging"
    size, shape = 1, ()

    def __init__(self, hang: threading.Event, *, says_ready: bool = False) -> None:
        self.hang = hang
        self.says_ready = says_ready

    def is_ready(self) -> bool:
        return self.says_ready or self.hang.is_set()

    def item(self) -> float:
        self.hang.wait(60)
        return 4.0


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def finished(run: Run, timeout: float) -> FinishReport:
    began = time.monotonic()
    report = run.finish(timeout=timeout)
    # Far below what hangs, and far above what a busy machine adds.
    assert time.monotonic() - began < timeout + CLOSE_S + 10
    return report


def wait_until_spooled(run: Run) -> None:
    """Loading the modules may take any time."""
    deadline = time.monotonic() + 30
    while not run.lag.bytes_spooled:
        assert time.monotonic() < deadline, run.lag
        assert not run.flush(0.1)


@pytest.mark.parametrize("says_ready", [False, True])
def test_a_device_that_hangs_keeps_nothing_but_its_own_values(start, tmp_path, caplog, hang, says_ready):
    run = start()
    run.log({"loss": 1.0}, step=0)
    run.log({"late": OnDevice(hang, says_ready=says_ready)}, step=1)
    report = finished(run, 0.5)
    assert (report.delivered, report.points_left, report.points_lost) == (False, 1, 1)
    assert points(tmp_path / "spool") == 1
    assert "1 points are lost" in caplog.text
    if not says_ready:
        assert statuses(tmp_path / "spool") == ["FINISHED"]
        assert run.stats.points_dropped == 1
        assert "still on their device" in caplog.text


def test_values_beside_one_that_is_late_are_kept(start, tmp_path, hang):
    run = start()
    run.log({"late": OnDevice(hang), "lr": 0.1}, step=1)
    assert finished(run, 0.2).points_lost == 1
    assert points(tmp_path / "spool") == 1


def test_flush_waits_for_the_device_no_longer_than_it_is_told(start, hang):
    run = start()
    run.log({"late": OnDevice(hang)}, step=1)
    began = time.monotonic()
    assert not run.flush(0.3)
    assert time.monotonic() - began < 20
    hang.set()
    assert finished(run, 0.5).points_left == 1


def test_a_disk_that_hangs_does_not_hold_up_the_end(start, monkeypatch, hang):
    run = start()
    run.log_param("lr", 1)
    wait_until_spooled(run)
    write = os.write

    def stuck(descriptor: int, data: bytes) -> int:
        hang.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr("stepstream.spool.writer.os.write", stuck)
    run.log({"loss": 1.0}, step=0)
    report = finished(run, 0.5)
    assert (report.delivered, report.points_lost) == (False, 1)
    assert run.lag.points_buffered == 1


def test_a_run_that_ends_before_it_could_open_still_leaves_all_to_the_spool(start, tmp_path):
    run = start()
    run.log({"loss": 1.0}, step=0)
    report = finished(run, 0.0)
    assert (report.points_left, report.points_lost) == (1, 0)
    assert points(tmp_path / "spool") == 1
    assert statuses(tmp_path / "spool") == ["FINISHED"]


def test_points_of_a_run_that_could_not_open_are_said_to_be_lost(start, monkeypatch, caplog):
    monkeypatch.setattr(Writer, "launch", lambda writer: writer._ready.set())
    run = start()
    run.log({"loss": 1.0}, step=0)
    report = finished(run, 0.1)
    assert (report.delivered, report.points_left, report.points_lost) == (False, 0, 1)
    assert run.stats.points_dropped == 1
    assert "they lie in" not in caplog.text


@pytest.mark.parametrize("first", ["stepstream-open", "stepstream-sealer", "stepstream-sender"])
@pytest.mark.parametrize("interval", [None, "every call"])
def test_a_run_for_which_there_are_no_more_threads_says_what_becomes_of_its_points(
    start, tmp_path, monkeypatch, caplog, first, interval
):
    usual = threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        if thread.name == first:
            raise RuntimeError("can't start new thread")
        usual(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    run = start(spool_interval=interval)
    assert run._writer.loaded.wait(20)
    run.log({"loss": 1.0}, step=0)
    run.set_tag("k", "v")
    report = finished(run, 0.1)
    kept = first == "stepstream-sender"
    assert (report.delivered, report.points_left, report.points_lost) == (False, kept, not kept)
    assert points(tmp_path / "spool") == kept
    assert caplog.text.count("the tracker could not start (RuntimeError") == 1
    assert ("nothing will be stored" in caplog.text) == (not kept)


def test_points_that_only_memory_had_are_said_to_be_lost(start, tmp_path, caplog):
    (tmp_path / "spool").write_text("where a directory should be")
    run = start()
    run.log({"loss": 1.0}, step=0)
    report = finished(run, 0.5)
    assert (report.delivered, report.points_left, report.points_lost) == (False, 0, 1)
    assert "they lie in" not in caplog.text


def test_a_spool_that_is_gone_at_the_end_is_said_to_be_lost(start, tmp_path, caplog):
    run = start()
    run.log({"loss": 1.0}, step=0)
    wait_until_spooled(run)
    shutil.rmtree(tmp_path / "spool")
    report = finished(run, 0.2)
    assert (report.delivered, report.points_lost) == (False, 1)


def test_what_other_threads_log_while_the_run_ends_is_stored_or_counted(start, tmp_path):
    run = start()
    logged = [0, 0, 0]
    stop = threading.Event()

    def log(number: int) -> None:
        while not stop.is_set():
            run.log({"loss": 1.0}, step=logged[number])
            logged[number] += 1
            time.sleep(0.0001)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    report = finished(run, 0.5)
    stop.set()
    for thread in threads:
        thread.join()
    stats = run.stats
    assert stats.points_dropped > 0
    assert report.points_left == points(tmp_path / "spool")
    assert report.points_left + stats.points_dropped == sum(logged)


def test_a_full_buffer_has_room_for_the_end_of_the_run(start, tmp_path, monkeypatch):
    launch = Writer.launch
    monkeypatch.setattr(Writer, "launch", lambda writer: None)
    run = start(buffer_bytes=2**16)
    while not run.stats.points_dropped:
        run.log({"loss": 1.0})
    threading.Timer(0.2, launch, (run._writer,)).start()
    finished(run, 1.0)
    assert statuses(tmp_path / "spool") == ["FINISHED"]


def test_no_thread_is_started_for_a_run_that_is_closing(start, monkeypatch):
    """Its modules may be loaded so late: a sender that nobody stops, and a sealer that nobody waits for."""
    monkeypatch.setattr(Writer, "launch", lambda writer: None)
    run = start()
    run.log({"loss": 1.0})
    before = threading.enumerate()
    monkeypatch.setattr("stepstream.lifecycle.unregister", lambda run: run._writer._open())
    report = finished(run, 0.1)
    assert (report.delivered, report.points_lost) == (False, 1)
    assert [one.name for one in threading.enumerate() if one not in before] == []


ENDINGS = {
    "it just ends": ("", "FINISHED"),
    "it raises": ("raise ValueError", "FAILED"),
    "it exits with 3": ("sys.exit(3)", "FAILED"),
    "it exits with 0": ("sys.exit(0)", "FINISHED"),
}


@pytest.mark.parametrize("how", ENDINGS)
async def test_a_script_that_never_says_finish_is_delivered_when_it_ends(server_factory, tmp_path, how):
    server = server_factory()
    line, status = ENDINGS[how]
    script = f"import sys, stepstream\nrun = stepstream.start_run()\nprint(run.run_id)\nrun.log({{'a': 1.0}})\n{line}\n"
    environ = os.environ | {"STEPSTREAM_TRACKING_URI": server.url, "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert "stepstream:" not in done.stderr
    sql = "SELECT status FROM runs WHERE run_id = $1::text::uuid"
    assert [row["status"] for row in await stored.fetch(server.database_url, sql, done.stdout.strip())] == [status]
    assert await stored.count(server.database_url, done.stdout.strip()) == 1
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("rank", [0, 1])
async def test_a_run_of_which_its_script_keeps_nothing_is_delivered_when_it_ends(server_factory, tmp_path, rank):
    server = server_factory()
    environ = os.environ | {"STEPSTREAM_TRACKING_URI": server.url, "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool")}
    script = (
        f"import gc, stepstream\nstepstream.start_run(run_id='ab' * 16, rank={rank}).log({{'a': 1.0}})\ngc.collect()"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert await stored.count(server.database_url, "ab" * 16) == 1
    assert list((tmp_path / "spool").iterdir()) == []


EXITS = """
import pickle, sys, threading, stepstream
run = stepstream.start_run(tracking_uri="http://127.0.0.1:9", finish_timeout=0.2)
run.log({"a": 1.0})
"""


@pytest.mark.parametrize(
    ("line", "code", "status"),
    [
        ("sys.exit(3)", 3, "FAILED"),
        ("sys.exit()", 0, "FINISHED"),
        ("sys.exit('no data')", 1, "FAILED"),
        ("try: sys.exit(3)\nexcept SystemExit as error: assert error.code == 3", 0, "FINISHED"),
        ("try: sys.exit(3)\nexcept SystemExit as error: error.code = 0; raise", 0, "FINISHED"),
        ("try: sys.exit(3)\nfinally: print('late')", 3, "FAILED"),
        ("try: sys.exit(3)\nexcept SystemExit as error: raise pickle.loads(pickle.dumps(error))", 3, "FINISHED"),
        ("thread = threading.Thread(target=sys.exit, args=(3,)); thread.start(); thread.join()", 0, "FINISHED"),
        ("with run: raise SystemExit(3)", 3, "FAILED"),
        ("with run: raise SystemExit(0)", 0, "FINISHED"),
    ],
)
def test_the_code_that_a_script_exits_with_is_how_its_run_ended(tmp_path, line, code, status):
    environ = os.environ | {"STEPSTREAM_SPOOL_DIR": str(tmp_path), "STEPSTREAM_SPOOL_MIN_FREE_BYTES": "0"}
    command = [sys.executable, "-c", EXITS + line]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("no data" in done.stderr) == ("no data" in line)
    assert statuses(tmp_path) == [status]


@pytest.mark.parametrize(
    ("said", "status"), [("failed", "FAILED"), ("success", "FAILED"), (3, "FINISHED"), ([], "FAILED")]
)
def test_a_run_ends_as_it_was_meant_to_and_keeps_its_points_whatever_is_said(start, tmp_path, caplog, said, status):
    run = start()
    run.log({"loss": 1.0}, step=0)
    report = run.finish(said, timeout=0.2)
    assert (run.status, run.info.status, statuses(tmp_path / "spool")) == (status, status, [status])
    assert (report.points_lost, points(tmp_path / "spool")) == (0, 1)
    assert caplog.text.count("no status of a run") == (said in ("success", []))


@pytest.mark.parametrize("count", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT", "STEPSTREAM_RESUME"])
@pytest.mark.parametrize("times", [0, 1])
def test_an_attempt_that_follows_another_says_that_the_run_goes_on(start, tmp_path, monkeypatch, count, times):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, count: times}.items():
        monkeypatch.setenv(name, str(value))
    run = start()
    run.log({"loss": 1.0}, step=0)
    run.finish("FAILED", timeout=0.2)
    assert statuses(tmp_path / "spool") == ["RUNNING", "FAILED"][1 - times :]


class Contrary:
    """Has nothing to say, and raises what has nothing to say either."""

    class Error(Exception):
        def __str__(self) -> str:
            raise RuntimeError("nothing")

    def __str__(self) -> str:
        raise self.Error

    __float__ = __repr__ = __hash__ = __str__


def test_nothing_that_logs_raises_whatever_it_is_given(start, tmp_path, caplog):
    run = start()
    odd = Contrary()
    for call in (
        lambda: run.set_tag("k", odd),
        lambda: run.set_tag(odd, "v"),
        lambda: run.log_param("k", odd),
        lambda: run.log_params(None),
        lambda: run.log_params([1]),
        lambda: run.set_tags(5),
        lambda: run.delete_tag(odd),
        lambda: run.log_metric([], 1.0),
        lambda: run.log_metric("k", odd),
        lambda: run.log_metric("k", 1.0, step=odd),
        lambda: run.log_metric("k", 1.0, timestamp=odd),
        lambda: run.log_metrics(odd),
        lambda: run.log({"k": odd, "good": 1.0}, step=0),
        lambda: run.log({5: "text", "good": 1.0}, step=1),
        lambda: run.log_input(odd),
        lambda: run.log_input({"name": "n"}, tags=5),
    ):
        before = run.stats.bad_values
        call()
        assert run.stats.bad_values == before + 1
    run.set_tag("none", None)
    run.delete_tag("gone")
    run.finish(timeout=0.3)
    tags = {
        key: value
        for record in spooled(tmp_path / "spool")
        if isinstance(record, Tags)
        for key, value, _ in record.items
    }
    assert (tags["none"], tags["gone"]) == ("None", None)
    assert points(tmp_path / "spool") == 2
    assert caplog.text.count("a value was not logged") == 1


SLOW_TO_LOAD = """
import os, sys, time
import stepstream

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "aiohttp":
            time.sleep(2)
            os.write(1, b"loaded ")

sys.meta_path.insert(0, Slow())
run = stepstream.start_run()
run.log({"loss": 1.0}, step=0)
END
os.write(1, b"ending ")
"""


@pytest.mark.parametrize("end", ["run.finish(timeout=0.1)", "pass"])
def test_a_script_that_ends_early_waits_for_what_is_being_loaded(tmp_path: Path, end: str) -> None:
    """OpenSSL cleans up as the process ends: a thread that reads certificates just then, for aiohttp, crashed it."""
    environment = os.environ | {
        "STEPSTREAM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
        "STEPSTREAM_FINISH_TIMEOUT": "0.1",
    }
    script = SLOW_TO_LOAD.replace("END", end)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"ending loaded "
    assert points(tmp_path / "spool") == 1


IN_CHILDREN = """
import multiprocessing, sys, stepstream

def trial(end):
    stepstream.log_metric("loss", 1.0)
    exec(end)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    child = context.Process(target=trial, args=(sys.argv[2],))
    try:
        {}["cached"]
    except KeyError:
        # What is being handled here is no failure of the child's.
        child.start()
    child.join()
    print(child.exitcode)
"""


@pytest.mark.parametrize(
    ("method", "end", "code", "status"),
    [
        ("fork", "pass", 0, "FINISHED"),
        ("forkserver", "pass", 0, "FINISHED"),
        ("spawn", "pass", 0, "FINISHED"),
        ("fork", "1 / 0", 1, "FAILED"),
        ("fork", "sys.exit(3)", 3, "FAILED"),
        ("fork", "sys.exit()", 0, "FINISHED"),
    ],
)
def test_a_run_of_a_multiprocessing_child_ends_with_it(tmp_path, method, end, code, status):
    script = tmp_path / "sweep.py"
    script.write_text(IN_CHILDREN)
    environ = os.environ | {
        "STEPSTREAM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
        "STEPSTREAM_FINISH_TIMEOUT": "0.2",
    }
    command = [sys.executable, str(script), method, end]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(code)], done.stderr
    assert points(tmp_path / "spool") == 1
    assert statuses(tmp_path / "spool") == [status]


TOLD = """
import multiprocessing, os, stepstream

def tell(queue):
    queue.put((stepstream.get_tracking_uri(), stepstream.settings.load(os.environ).experiment))

if __name__ == "__main__":
    stepstream.set_tracking_uri("http://127.0.0.1:9")
    stepstream.set_experiment("sweep")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=tell, args=(queue,))
    child.start()
    print(*queue.get())
    child.join()
    stepstream.set_tracking_uri(None)
    print(stepstream.get_tracking_uri())
"""


def test_processes_that_are_started_log_to_where_their_parent_was_told_to(tmp_path):
    script = tmp_path / "sweep.py"
    script.write_text(TOLD)
    environ = os.environ | {"STEPSTREAM_TRACKING_URI": "http://127.0.0.1:7"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["http://127.0.0.1:9", "sweep", "http://127.0.0.1:7"], done.stderr


@pytest.mark.parametrize("trouble", ["no directory", "a full disk"])
def test_texts_and_streams_are_sent_from_memory_where_the_spool_takes_none(
    server_factory, tmp_path, caplog, monkeypatch, trouble
):
    server = server_factory()
    if trouble == "no directory":
        (tmp_path / "spool").write_text("where a directory should be")
    else:
        monkeypatch.setenv("STEPSTREAM_SPOOL_MIN_FREE_BYTES", str(2**62))
    run = stepstream.start_run(tracking_uri=server.url, spool_dir=tmp_path / "spool", buffer_bytes=2**20)
    run.log_text("words \ud800", "a.txt")
    run.log_dict({"a": 1}, "b.json")
    run.log_artifact(io.BytesIO(b"bytes"), "c.bin")
    # More than may wait in memory: said, counted, and no error of the training's.
    large = run.log_text("d" * 3 * 2**20, "d.txt")
    assert (large.state, "d.txt" in large.errors[0]) == ("failed", True)
    report = run.finish(timeout=30)
    assert len(report.artifacts_failed) == 1
    assert caplog.text.count("files are sent from memory") == 1
    stepstream.download_artifacts(run.run_id, "", tmp_path / "down", tracking_uri=server.url)
    there = {path.name: path.read_bytes() for path in (tmp_path / "down").iterdir()}
    assert there == {"a.txt": b"words ?", "b.json": b'{\n  "a": 1\n}', "c.bin": b"bytes"}


def test_what_a_disk_says_of_a_file_is_an_artifact_error(server_factory, tmp_path):
    run = stepstream.start_run(tracking_uri=server_factory().url, spool_dir=tmp_path / "spool")
    run.log_text("words", "a.txt")
    (tmp_path / "file").write_text("where a directory should be")
    with pytest.raises(ArtifactError, match="too long"):
        run.log_artifact("a" * 300)
    with pytest.raises(ArtifactError, match="too long"):
        run.log_artifacts("a" * 300)
    assert run.finish().delivered
    with pytest.raises(ArtifactError, match="in the way"):
        run.download_artifacts("a.txt", tmp_path / "file")


def test_what_only_memory_had_of_artifacts_is_said_to_be_lost(start, tmp_path, caplog):
    (tmp_path / "spool").write_text("where a directory should be")
    run = start()
    run.log_text("words", "a.txt")
    run.log_artifact(io.BytesIO(bytes(3 * 2**20)), "b.bin")
    report = run.finish(timeout=0.5)
    assert report.artifacts_left == ()
    assert sorted(one[:6] for one in report.artifacts_failed) == ["a.txt:", "b.bin:"]
    assert "they lie in" not in caplog.text


def test_all_open_runs_together_keep_the_end_of_a_process_no_longer_than_one(tmp_path):
    script = """
import stepstream
for number in range(8):
    stepstream.start_run(nested=number > 0).log({"a": 1.0}, step=number)
"""
    environ = os.environ | {
        "STEPSTREAM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "STEPSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
        "STEPSTREAM_FINISH_TIMEOUT": "5",
    }
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", script], env=environ, check=True, capture_output=True, timeout=100)
    # One after the other they would take 40 s.
    assert time.monotonic() - began < 25
    assert points(tmp_path / "spool") == 8
    assert statuses(tmp_path / "spool") == ["FINISHED"] * 8


@pytest.mark.parametrize("has_stopped", [False, True])
@pytest.mark.timeout(60)
def test_a_finish_that_is_called_again_after_one_was_interrupted_late_waits_for_nobody(
    start, tmp_path, monkeypatch, has_stopped
):
    run = start(finish_timeout=1000.0)
    run.log({"loss": 1.0}, step=0)
    run.log_text("words", "a.txt")
    stop = Sealer.stop

    def interrupted(sealer: Sealer, timeout_s: float) -> bool:
        monkeypatch.setattr(Sealer, "stop", stop)
        if has_stopped:
            stop(sealer, timeout_s)
        raise KeyboardInterrupt

    monkeypatch.setattr(Sealer, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.finish(timeout=0.1)
    # As at the end of the process. Who sends has gone already.
    report = run.finish("KILLED", timeout=1000)
    assert (report.points_left, report.points_lost, report.artifacts_left) == (1, 0, ("a.txt",))
    assert statuses(tmp_path / "spool") == ["FINISHED"]
