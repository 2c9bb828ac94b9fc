"""Spools of the dead, delivered to a real server."""

import asyncio
import errno
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stepstream import cli, gap, process
from stepstream.process import ProcessId
from stepstream.spool import adoption, names
from stepstream.spool.segment import SegmentHeader, encode_entry, encode_header
from stepstream.sync import deliver_orphans
from stepstream.transport import Answer, Transport, Unavailable
from stepstream_schema import limits
from tests.integration.app import RUN, WRITER, fetch, frame, metrics, post, running, stored_points

DEAD = replace(process.current(), start="1")
FAR = limits.CURSOR_WINDOW_FRAMES + 10
"""A number that a writer of which nothing is stored is not allowed yet."""


@pytest.fixture
def sibling() -> Iterator[ProcessId]:
    """Another process of this host that runs."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.of(child.pid)
    child.communicate()


def segment(directory: Path, number: int, *seqs: int, state: str = "seg", owner: ProcessId = DEAD) -> Path:
    """A segment whose frames hold a point each."""
    header = SegmentHeader(
        run_id=RUN, writer=WRITER, number=number, owner=owner, tracking_uri="u", experiment="e", created_ms=5
    )
    path = directory / str(names.SegmentName(RUN, WRITER, number, state))
    entries = [encode_entry(frame(seq, metrics({"a": [float(seq)]}, first_step=seq))) for seq in seqs]
    path.write_bytes(encode_header(header) + b"".join(entries))
    return path


def transport(client) -> Transport:
    return Transport(str(client.make_url("")).rstrip("/"), None)


async def test_numbers_that_a_living_process_has_are_never_given_up(database_url, tmp_path, sibling, monkeypatch):
    monkeypatch.setattr(gap, "PATIENCE_ANSWERS", 2)
    lower = segment(tmp_path, 1, 1, 2, 3, state=f"claim-{names.token(sibling)}.was_seg")
    upper = [segment(tmp_path, number, FAR + number) for number in (2, 3)]
    async with running(database_url) as client:
        async with transport(client) as sender:
            report = await deliver_orphans(tmp_path, sender)
        assert (report.frames, len(report.left), report.busy) == (0, 3, 1)
        # The sibling comes to it at last.
        answer = await post(client, *[frame(seq, metrics({"a": [float(seq)]}, first_step=seq)) for seq in (1, 2, 3)])
        assert (answer["stored"], answer["duplicates"]) == (3, 0)
        lower.unlink()
        async with transport(client) as sender:
            report = await deliver_orphans(tmp_path, sender)
        assert (report.frames, report.left) == (2, ())
    assert await stored_points(database_url) == 5
    assert not any(path.exists() for path in upper)


async def test_numbers_that_nobody_has_are_given_up(database_url, tmp_path):
    segment(tmp_path, 2, FAR)
    async with running(database_url) as client, transport(client) as sender:
        report = await deliver_orphans(tmp_path, sender)
    assert (report.frames, report.segments, report.left) == (1, 1, ())
    assert await stored_points(database_url) == 1


async def test_a_damaged_segment_is_kept_and_said_and_what_can_be_read_is_delivered(database_url, tmp_path):
    path = segment(tmp_path, 1, 1, 2, 3, 4)
    data = bytearray(path.read_bytes())
    third = data.index(encode_entry(frame(3, metrics({"a": [3.0]}, first_step=3))))
    data[third + 20] ^= 0xFF
    path.write_bytes(data)
    async with running(database_url) as client, transport(client) as sender:
        report = await deliver_orphans(tmp_path, sender)
        assert (report.frames, report.damaged) == (2, 1)
        assert f"{len(data) - third} bytes" in report.problems[0]
        (kept,) = tmp_path.iterdir()
        assert kept.name in report.problems[0]
        assert kept.read_bytes() == data
        assert list(adoption.find_segments(tmp_path)) == []
    assert await stored_points(database_url) == 2


@pytest.mark.parametrize("state", ["open", "seg"])
async def test_an_end_that_is_cut_off_is_damage_where_the_segment_was_closed(database_url, tmp_path, state):
    path = segment(tmp_path, 1, 1, 2, state=state)
    path.write_bytes(path.read_bytes()[:-3])
    async with running(database_url) as client:
        # A server that takes nothing: the segment is given back, and is still what it was.
        async with Transport("http://127.0.0.1:9", None) as nowhere:
            with pytest.raises(Unavailable):
                await deliver_orphans(tmp_path, nowhere, patience_s=0)
        async with transport(client) as sender:
            report = await deliver_orphans(tmp_path, sender)
    assert (report.frames, report.damaged) == (1, int(state == "seg"))
    assert len(report.problems) == 1
    assert [one.suffix for one in tmp_path.iterdir()] == [".damaged"] * report.damaged


async def test_a_segment_that_cannot_be_read_stays_and_keeps_nobody_from_the_others(database_url, tmp_path):
    junk = segment(tmp_path, 1, 1)
    junk.write_bytes(b"something else")
    segment(tmp_path, 2, 2)
    async with running(database_url) as client, transport(client) as sender:
        report = await deliver_orphans(tmp_path, sender)
    assert (report.frames, len(report.left)) == (1, 1)
    assert junk.exists()
    assert [row["seq"] for row in await fetch(database_url, "SELECT seq FROM frames")] == [2]


async def test_others_go_on_while_a_spool_with_many_segments_of_living_writers_is_looked_through(tmp_path, sibling):
    for number in range(200):
        segment(tmp_path, number, 1, owner=sibling)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async with Transport("http://127.0.0.1:9", None) as sender:
        report = await deliver_orphans(tmp_path, sender)
    task.cancel()
    assert (len(report.left), report.frames) == (200, 0)
    assert turns >= 200


async def test_what_was_delivered_before_the_server_went_away_is_said(database_url, tmp_path, monkeypatch, capsys):
    for number in (1, 2):
        segment(tmp_path, number, number)
    arrived = []
    send = Transport.post

    async def gone_after_one(self: Transport, frames: list[bytes]) -> Answer:
        if arrived:
            raise Unavailable("gone")
        arrived.append(frames)
        return replace(await send(self, frames), hidden=("run x is hidden",))

    monkeypatch.setattr(Transport, "post", gone_after_one)
    async with running(database_url) as client:
        uri = str(client.make_url("")).rstrip("/")
        code = await asyncio.to_thread(cli.main, ["sync", str(tmp_path), "--tracking-uri", uri, "--patience", "0"])
    said = capsys.readouterr()
    assert code == 1
    assert "1 frames of 1 segments are on the server" in said.out
    assert "run x is hidden" in said.err
    assert f"gone. What is left stays in {tmp_path}" in said.err
    assert await stored_points(database_url) == 1


async def test_a_segment_that_cannot_be_given_back_ends_no_sync(database_url, tmp_path, monkeypatch):
    """As where a disk has become read-only: the claim is of a process that ends, and holds nobody up."""
    segment(tmp_path, 1, 1)
    segment(tmp_path, 2, 2)

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(adoption, "remove", read_only)
    monkeypatch.setattr(adoption, "release", read_only)

    async with running(database_url) as client, transport(client) as sender:
        report = await deliver_orphans(tmp_path, sender)
        assert len(report.left) == 2
        assert all("could not be given back" in said for said in report.left)
        monkeypatch.undo()
        # Its process has ended since.
        monkeypatch.setattr(adoption, "_claimer_dead", lambda state, here: True)
        assert (await deliver_orphans(tmp_path, sender)).frames == 2
    assert await stored_points(database_url) == 2
