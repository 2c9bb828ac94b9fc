"""What happens to the spool of a living writer: what can still be read is not lost, and what is lost is counted."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stepstream
from stepstream import process, settings
from stepstream import sender as module
from stepstream.delivery import MAX_REQUEST_FRAMES
from stepstream.framer import Framer
from stepstream.notices import Notices
from stepstream.outbox import Outbox
from stepstream.sender import Sender
from stepstream.spool.reader import SpoolReader
from stepstream.spool.writer import SpoolWriter
from stepstream.transport import Transport
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Start
from tests.e2e import stored

RUN_ID = "ab" * 16
WRITER = 7
POINTS = 10


class Writer:
    """One writer without a buffer: every frame lies in a segment of its own before its sender starts."""

    def __init__(self, url: str, directory: Path, frames: int) -> None:
        spool = SpoolWriter(
            directory,
            run_id=RUN_ID,
            writer=WRITER,
            owner=process.current(),
            tracking_uri=url,
            experiment="e",
            created_ms=1,
            max_bytes=2**30,
            min_free_bytes=0,
            segment_bytes=1,
        )
        start = Start(experiment="e", name="n", time_ms=1)
        framer = Framer(run_id=RUN_ID, writer=WRITER, rank=None, attempt=Attempt(), start=start)
        self.directory = directory
        self.frames = frames
        self.notices = Notices()
        self.outbox = Outbox(spool, SpoolReader(directory, RUN_ID, WRITER), self.notices)
        self.data: list[bytes] = []
        for number in range(frames):
            for sealed in framer.seal([(number, 0, {f"k{key}": 1.0 for key in range(POINTS)})], []):
                self.outbox.put(sealed)
                self.data.append(sealed.data)
        self.sender = Sender(
            settings=settings.load({}, tracking_uri=url, spool_dir=directory),
            outbox=self.outbox,
            notices=self.notices,
            run_id=RUN_ID,
            writer=WRITER,
            adopt=False,
        )

    def segment(self, number: int) -> Path:
        (path,) = self.directory.glob(f"{RUN_ID}-{WRITER:016x}-{number:08d}.*")
        return path

    def delivers(self, seq: int, timeout_s: float = 20.0) -> bool:
        return self.outbox.wait(seq, timeout_s)

    def until(self, predicate: Callable[[], bool], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not predicate():
            assert time.monotonic() < deadline, "this did not happen in time"
            time.sleep(0.02)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[..., Writer]]:
    made: list[Writer] = []

    def make(url: str, frames: int = 5) -> Writer:
        made.append(Writer(url, tmp_path / "spool", frames))
        return made[-1]

    yield make
    for one in made:
        one.sender.stop(5.0)
        one.outbox.close()


async def steps(database_url: str) -> set[int]:
    return {point.step for point in await stored.points(database_url, RUN_ID)}


async def test_a_segment_that_is_removed_is_counted_as_lost_and_its_neighbours_live(
    server_factory, writer, monkeypatch, caplog
):
    monkeypatch.setattr(module, "GIVE_UP_S", 0.5)
    monkeypatch.setattr(module, "READ_RETRY_S", 0.1)
    server = server_factory()
    subject = writer(server.url)
    subject.segment(2).unlink()
    subject.segment(4).write_bytes(subject.segment(4).read_bytes()[:-1] + b"?")
    subject.sender.start()
    assert not subject.delivers(5)
    assert subject.outbox.unsettled.frames == 0
    assert (subject.outbox.frames_lost, subject.outbox.points_lost) == (2, 2 * POINTS)
    assert subject.outbox.points_acknowledged == 3 * POINTS
    assert caplog.text.count("points are lost") == 1
    assert await steps(server.database_url) == {0, 2, 4}


async def test_a_segment_that_another_process_has_delivered_is_not_lost(server_factory, writer, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP_S", 0.3)
    monkeypatch.setattr(module, "READ_RETRY_S", 0.1)
    server = server_factory()
    subject = writer(server.url)
    # It holds one of them still, and is done with the other.
    claimed = subject.segment(3)
    claimed.rename(claimed.with_suffix(".claim-another"))
    async with Transport(server.url, None) as transport:
        await transport.post([subject.data[1]])
    subject.segment(2).unlink()
    subject.sender.start()
    assert subject.delivers(5)
    assert subject.outbox.frames_lost == 0
    assert subject.outbox.points_acknowledged == 5 * POINTS
    assert await stored.count(server.database_url, RUN_ID) == 5 * POINTS


async def test_a_segment_that_cannot_be_read_now_is_read_later(server_factory, writer, monkeypatch, caplog):
    monkeypatch.setattr(module, "GIVE_UP_S", 0.0)
    server = server_factory()
    subject = writer(server.url)
    path, aside = subject.segment(2), subject.directory / "aside"
    path.rename(aside)
    path.symlink_to(path)  # opening it is an error that says nothing of the frames
    subject.sender.start()
    subject.until(lambda: subject.outbox.unsettled.frames == 1)
    assert await steps(server.database_url) == {0, 2, 3, 4}
    aside.rename(path)
    assert subject.delivers(5)
    assert await steps(server.database_url) == set(range(5))
    assert caplog.text.count("it is tried again") == 1


class Answering(http.server.BaseHTTPRequestHandler):
    """Gives answers that no server of ours can be brought to give."""

    protocol_version = "HTTP/1.1"
    answers: Callable[[int], tuple[int, dict[str, str], object]]
    times: list[float]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, said = type(self).answers(len(self.times))
        self.times.append(time.monotonic())
        body = json.dumps(said).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def answering(answers: Callable[[int], tuple[int, dict[str, str], object]]) -> Iterator[tuple[str, list[float]]]:
    handler = type("Handler", (Answering,), {"answers": staticmethod(answers), "times": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.times  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def taken(frames: int, ahead: list[dict[str, int]]) -> tuple[int, dict[str, str], object]:
    said = {"stored": frames, "duplicates": 0, "refused": [], "ahead": ahead, "param_conflicts": []}
    return 200, {}, said


def test_a_frame_that_a_proxy_finds_too_large_stays_in_the_spool(writer, caplog):
    with answering(lambda number: (413, {}, {})) as (url, times):
        subject = writer(url, frames=2)
        subject.sender.start()
        subject.until(lambda: "too large" in caplog.text and len(times) >= 3)
        assert not subject.delivers(2, 0.2)
        subject.sender.stop(5.0)
    assert subject.outbox.unsettled.frames == 2
    assert subject.sender.points_refused == 0
    assert subject.segment(1).exists()
    assert caplog.text.count("too large") == 1
    assert "stays in" in caplog.text


def test_a_gap_that_cannot_be_filled_sends_no_settled_frame_again(writer):
    """The first answer settles frame 1 and finds frame 2 ahead; the tombstone after it fails."""

    def answers(number: int) -> tuple[int, dict[str, str], object]:
        if number == 0:
            return taken(1, [{"index": 1, "mark": 0}])
        return (503, {}, {}) if number == 1 else taken(1, [])

    with answering(answers) as (url, times):
        subject = writer(url, frames=2)
        subject.sender.start()
        assert subject.delivers(2)
        time.sleep(0.3)
        subject.sender.stop(5.0)
    assert subject.outbox.points_acknowledged == 2 * POINTS
    assert len(times) == 3


def test_a_gap_of_100_000_frames_is_filled_a_window_at_a_time(writer):
    """As after hours with a full spool: the server knows frame 0, and the writer has frames from 100,001 on."""
    with answering(lambda number: taken(0, [{"index": 0, "mark": 0}]) if not number else taken(1, [])) as (url, times):
        subject = writer(url, frames=1)
        subject.outbox.lowest_seq = lambda: 100_001
        subject.sender.start()
        assert subject.delivers(1)
        # The frame twice, and half a window.
        expected = 2 + limits.CURSOR_WINDOW_FRAMES // 2 // MAX_REQUEST_FRAMES
        subject.until(lambda: len(times) >= expected)
        subject.sender.stop(5.0)
    assert len(times) == expected


@pytest.mark.parametrize(("headers", "said"), [({"Retry-After": "0"}, 0), ({}, 2)])
def test_a_server_that_is_busy_for_a_moment_is_not_said_to_be_away(writer, caplog, headers, said):
    with answering(lambda number: taken(1, []) if number > 2 else (429, headers, {})) as (url, times):
        subject = writer(url, frames=1)
        subject.sender.start()
        assert subject.delivers(1)
        subject.sender.stop(5.0)
    assert len(times) == 4
    assert len(caplog.records) == said, caplog.text


def test_retry_after_is_obeyed_though_somebody_waits(writer):
    with answering(lambda number: taken(1, []) if number else (429, {"Retry-After": "1"}, {})) as (url, times):
        subject = writer(url, frames=1)
        subject.sender.start()
        subject.until(lambda: len(times) == 1)
        for _ in range(5):
            subject.sender.hurry()
            time.sleep(0.05)
        assert subject.delivers(1)
        subject.sender.stop(5.0)
    assert times[1] - times[0] >= 1.0


def test_what_an_earlier_run_left_and_cannot_be_read_is_said(server_factory, tmp_path, monkeypatch, caplog):
    server, spool = server_factory(), tmp_path / "spool"
    monkeypatch.setenv("STEPSTREAM_SPOOL_DIR", str(spool))
    monkeypatch.setenv("STEPSTREAM_TRACKING_URI", server.url)
    server.kill()
    earlier = stepstream.start_run(run_id=RUN_ID)
    earlier.log({"loss": 1.0}, step=0)
    assert not earlier.finish(timeout=1).delivered
    (segment,) = [one for one in spool.iterdir() if one.is_file()]
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    server.restart()
    later = stepstream.start_run()
    deadline = time.monotonic() + 30
    while "could be delivered" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.1)
    assert later.finish().delivered
    assert "not all that earlier processes left could be delivered" in caplog.text
    assert len(list(spool.glob("*.damaged"))) == 1
