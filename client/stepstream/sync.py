"""Delivers what processes that are gone have left in a spool directory."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from stepstream.backoff import Backoff
from stepstream.delivery import AHEAD_WAIT_S, MAX_REQUEST_BYTES, MAX_REQUEST_FRAMES
from stepstream.errors import SpoolDamaged
from stepstream.gap import Gap
from stepstream.spool import adoption, names
from stepstream.spool.segment import SegmentHeader, read_entries, read_header
from stepstream.tombstone import tombstones
from stepstream.transport import Answer, Rejected, Transport, Unavailable
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt

BEHIND: Final = "another process has segments that come before it, and has delivered nothing of them for a while"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a delivery did."""

    segments: int = 0
    frames: int = 0
    """Durable on the server now, duplicates of earlier deliveries included."""
    refused: int = 0
    """Frames that the server will never take."""
    damaged: int = 0
    """Segments that could not be read to their end and are kept under another name."""
    problems: tuple[str, ...] = field(default=())
    """What could not be read, and why."""
    left: tuple[str, ...] = field(default=())
    """Segments that hold frames and stay, each with the reason."""
    hidden: tuple[str, ...] = field(default=())
    """Which runs are stored and not shown, and what to do."""
    busy: int = 0
    """Segments that another process was delivering."""

    def __add__(self, other: "SyncReport") -> "SyncReport":
        return SyncReport(
            segments=self.segments + other.segments,
            frames=self.frames + other.frames,
            refused=self.refused + other.refused,
            damaged=self.damaged + other.damaged,
            problems=self.problems + other.problems,
            left=self.left + other.left,
            hidden=self.hidden + other.hidden,
            busy=self.busy + other.busy,
        )

    def again(self, later: "SyncReport") -> "SyncReport":
        """With a later pass over the same directory, which knows what is left."""
        return replace(self + later, left=later.left, busy=later.busy)


class Behind(Exception):
    """Somebody else has lower numbers of this writer and does not deliver them."""


async def deliver_orphans(
    directory: Path,
    transport: Transport,
    *,
    tracking_uri: str | None = None,
    everything: bool = False,
    patience_s: float | None = None,
    progress: Callable[[SyncReport], None] = lambda report: None,
) -> SyncReport:
    """Deliver every segment in `directory` whose writer is dead or has ended its run, lowest numbers first.

    `tracking_uri` restricts it to segments meant for that server. A server that is away is waited for, at most
    `patience_s` seconds in a row if given. Raises Rejected or Unavailable with the segment given back.
    """
    report = SyncReport()
    left: list[str] = []
    behind: set[tuple[str, int]] = set()
    for path in sorted(adoption.find_segments(directory)):
        one = await _deliver_if_orphan(path, transport, tracking_uri, everything, patience_s, behind)
        # Of a directory that hundreds of ranks share nearly all may be left, and to look at one waits for nothing.
        left += one.left
        report += replace(one, left=())
        progress(report)
        await asyncio.sleep(0)
    return replace(report, left=tuple(left))


async def _deliver_if_orphan(
    path: Path,
    transport: Transport,
    tracking_uri: str | None,
    everything: bool,
    patience_s: float | None,
    behind: set[tuple[str, int]],
) -> SyncReport:
    try:
        header, holds_frames = adoption.look(path)
        if tracking_uri is not None and header.tracking_uri != tracking_uri:
            return SyncReport()
        verdict = adoption.judge(path, header, everything=everything)
        if verdict != "take":
            # Nothing is opened twice here: hundreds of ranks may share the directory, on a file server.
            said = (f"{path.name}: {_reason(path, header, verdict)}",) if holds_frames else ()
            return SyncReport(left=said, busy=int(verdict == "alive" and names.is_claimed(path)))
        if (header.run_id, header.writer) in behind:
            return _left(path, BEHIND)
        claimed = adoption.claim(path)
    except FileNotFoundError:
        return SyncReport(busy=1)  # delivered or taken by another process meanwhile
    except (OSError, SpoolDamaged) as error:
        return _left(path, str(error))
    if claimed is None:
        return SyncReport(busy=1)
    try:
        return await _deliver(claimed, header, transport, patience_s)
    except Behind:
        behind.add((header.run_id, header.writer))
        return _given_back(claimed, header, BEHIND)
    except OSError as error:
        return _given_back(claimed, header, str(error))
    except BaseException as error:
        try:
            adoption.release(claimed, header.owner)
        except OSError as trouble:
            error.add_note(f"{claimed.name} could not be given back: {trouble}")
        raise


def _reason(path: Path, header: SegmentHeader, verdict: adoption.Verdict) -> str:
    if verdict == "alive":
        return "another process is delivering it" if names.is_claimed(path) else "its writer is running and delivers it"
    if verdict == "foreign":
        return f"its writer ran on {header.owner.host}; --everything takes it"
    return f"{header.owner.host} wrote to it within the hour and may still be running"


def _given_back(claimed: Path, header: SegmentHeader, reason: str) -> SyncReport:
    try:
        path = adoption.release(claimed, header.owner)
    except OSError as error:
        # A claim of a process that has ended holds nobody up.
        return SyncReport(left=(f"{claimed.name}: {reason}; it could not be given back either: {error}",))
    return _left(path, reason)


def _left(path: Path | None, reason: str) -> SyncReport:
    """The segment stays; said only where it holds frames."""
    if path is None:
        return SyncReport(busy=1)
    try:
        said = (f"{path.name}: {reason}",) if adoption.holds_frames(path) else ()
    except FileNotFoundError:
        return SyncReport(busy=1)
    except OSError:
        said = (f"{path.name}: {reason}",)
    return SyncReport(left=said)


async def _deliver(path: Path, header: SegmentHeader, transport: Transport, patience_s: float | None) -> SyncReport:
    """All that can be read; then the segment goes, or is kept under another name if there was more."""
    report = SyncReport(segments=1)
    try:
        for frames in _batches(path):
            report += await _post_all(frames, path, header, transport, patience_s)
    except SpoolDamaged as error:
        return report + _put_away(path, error)
    adoption.remove(path)
    return report


def _put_away(path: Path, error: SpoolDamaged) -> SyncReport:
    name = path.name.partition(".")[0]
    if error.is_cut_off and adoption.was_open(path):
        # What a writer killed in the middle of a write leaves behind: it never said that this frame was safe.
        adoption.remove(path)
        return SyncReport(problems=(f"{name}: {error}; everything before that is delivered",))
    kept = adoption.keep_damaged(path)
    problem = f"{name}: {error}; everything before that is delivered, and the file is kept as {kept.name}"
    return SyncReport(damaged=1, problems=(problem,))


def _batches(path: Path) -> Iterator[list[bytes]]:
    """The frames of a segment, as many as a request takes; raises SpoolDamaged after the last that can be read."""
    batch: list[bytes] = []
    size = 0
    damage: SpoolDamaged | None = None
    with path.open("rb") as file:
        read_header(file)
        try:
            for entry in read_entries(file):
                if batch and (size + len(entry.payload) > MAX_REQUEST_BYTES or len(batch) == MAX_REQUEST_FRAMES):
                    yield batch
                    batch, size = [], 0
                batch.append(entry.payload)
                size += len(entry.payload)
        except SpoolDamaged as error:
            damage = error
    if batch:
        yield batch
    if damage is not None:
        raise damage


async def _post_all(
    frames: list[bytes], path: Path, header: SegmentHeader, transport: Transport, patience_s: float | None
) -> SyncReport:
    """Until every frame is stored or refused. Raises Behind."""
    report = SyncReport()
    gap = Gap()
    while True:
        answer = await _post(frames, transport, patience_s)
        ahead = {index for index, _ in answer.ahead}
        refused = len(answer.refused)
        report += SyncReport(frames=len(frames) - len(ahead) - refused, refused=refused, hidden=answer.hidden)
        frames = [frames[index] for index in sorted(ahead)]
        if not frames:
            return report
        await asyncio.sleep(AHEAD_WAIT_S)
        owned = adoption.lower_segments(path.parent, header.run_id, header.writer, header.number)
        verdict = gap.seen(max(mark for _, mark in answer.ahead), owned=owned)
        if verdict == "leave":
            raise Behind
        if verdict == "fill":
            await _give_up_lower(answer, header, transport, patience_s)


async def _give_up_lower(answer: Answer, header: SegmentHeader, transport: Transport, patience_s: float | None) -> None:
    """Nobody has the lower numbers any more: consume a window of them, so that the mark can move."""
    first = max(mark for _, mark in answer.ahead) + 1
    lost = list(
        tombstones(header.run_id, header.writer, Attempt(), first, first + limits.CURSOR_WINDOW_FRAMES // 2 - 1)
    )
    for start in range(0, len(lost), MAX_REQUEST_FRAMES):
        await _post(lost[start : start + MAX_REQUEST_FRAMES], transport, patience_s)


async def _post(frames: list[bytes], transport: Transport, patience_s: float | None) -> Answer:
    backoff = Backoff(random.SystemRandom().uniform)
    began = time.monotonic()
    while True:
        try:
            return await transport.post(frames)
        except Unavailable as error:
            wait = backoff.failed(error.retry_after_s)
            if patience_s is not None and time.monotonic() + wait - began > patience_s:
                raise
            await asyncio.sleep(wait)
        except Rejected as error:
            if error.status != 413 or len(frames) == 1:
                raise
            half = len(frames) // 2
            return _joined(
                await _post(frames[:half], transport, patience_s),
                await _post(frames[half:], transport, patience_s),
                half,
            )


def _joined(first: Answer, second: Answer, offset: int) -> Answer:
    return Answer(
        stored=first.stored + second.stored,
        duplicates=first.duplicates + second.duplicates,
        refused=(*first.refused, *((index + offset, code, text) for index, code, text in second.refused)),
        ahead=(*first.ahead, *((index + offset, mark) for index, mark in second.ahead)),
        param_conflicts=(*first.param_conflicts, *second.param_conflicts),
        hidden=(*first.hidden, *second.hidden),
    )
