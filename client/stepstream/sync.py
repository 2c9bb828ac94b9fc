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
from stepstream.spool import adoption
from stepstream.spool.segment import SegmentHeader, read_entries, read_header
from stepstream.tombstone import tombstones
from stepstream.transport import Answer, Rejected, Transport, Unavailable
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt

AHEAD_PATIENCE_S: Final = 30.0
"""How long frames wait for lower numbers that another process may be delivering, before these count as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a delivery did."""

    segments: int = 0
    frames: int = 0
    """Durable on the server now, duplicates of earlier deliveries included."""
    refused: int = 0
    """Frames that the server will never take."""
    problems: tuple[str, ...] = field(default=())
    """What was left where it is, or cut off, and why."""

    def __add__(self, other: "SyncReport") -> "SyncReport":
        return SyncReport(
            segments=self.segments + other.segments,
            frames=self.frames + other.frames,
            refused=self.refused + other.refused,
            problems=self.problems + other.problems,
        )


async def deliver_orphans(
    directory: Path,
    transport: Transport,
    *,
    tracking_uri: str | None = None,
    everything: bool = False,
    patience_s: float | None = None,
    progress: Callable[[SyncReport], None] = lambda report: None,
) -> SyncReport:
    """Deliver every segment in `directory` whose writer is dead, lowest numbers first.

    `tracking_uri` restricts it to segments meant for that server. A server that is away is waited for, at most
    `patience_s` seconds in a row if given. Raises Rejected or Unavailable with the segment given back.
    """
    report = SyncReport()
    for path in sorted(adoption.find_segments(directory)):
        report += await _deliver_if_orphan(path, transport, tracking_uri, everything, patience_s)
        progress(report)
    return report


async def _deliver_if_orphan(
    path: Path, transport: Transport, tracking_uri: str | None, everything: bool, patience_s: float | None
) -> SyncReport:
    try:
        header = adoption.header_of(path)
        if tracking_uri is not None and header.tracking_uri != tracking_uri:
            return SyncReport()
        verdict = adoption.judge(path, header, everything=everything)
        if verdict != "take":
            reason = {
                "alive": "its writer is running and delivers it itself",
                "foreign": f"its writer ran on {header.owner.host}; --everything takes it",
                "recent": f"{header.owner.host} wrote to it within the hour and may still be running",
            }[verdict]
            return SyncReport(problems=(f"{path.name}: {reason}",))
        claimed = adoption.claim(path)
    except FileNotFoundError:
        return SyncReport()  # delivered or taken by another process meanwhile
    except (OSError, SpoolDamaged) as error:
        return SyncReport(problems=(f"{path.name}: {error}",))
    if claimed is None:
        return SyncReport()
    try:
        report = await _deliver(claimed, header, transport, patience_s)
    except BaseException:
        adoption.release(claimed)
        raise
    claimed.unlink(missing_ok=True)
    return replace(report, segments=1)


async def _deliver(path: Path, header: SegmentHeader, transport: Transport, patience_s: float | None) -> SyncReport:
    report = SyncReport()
    problems: list[str] = []
    for frames in _batches(path, problems):
        report += await _post_all(frames, path, header, transport, patience_s)
    return replace(report, problems=(*report.problems, *problems))


def _batches(path: Path, problems: list[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
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
            # What a writer killed in the middle of a write leaves behind: all frames before it are whole.
            problems.append(f"{path.name.split('.')[0]}: {error}; everything before that is delivered")
    if batch:
        yield batch


async def _post_all(
    frames: list[bytes], path: Path, header: SegmentHeader, transport: Transport, patience_s: float | None
) -> SyncReport:
    """Until every frame is stored or refused."""
    report = SyncReport()
    waiting_since = time.monotonic()
    while frames:
        answer = await _post(frames, transport, patience_s)
        ahead = {index for index, _ in answer.ahead}
        refused = len(answer.refused)
        report += SyncReport(frames=len(frames) - len(ahead) - refused, refused=refused)
        frames = [frames[index] for index in sorted(ahead)]
        if frames:
            await asyncio.sleep(AHEAD_WAIT_S)
            late = time.monotonic() - waiting_since > AHEAD_PATIENCE_S
            if late or not adoption.lower_segments(path.parent, header.run_id, header.writer, header.number):
                await _give_up_lower(answer, header, transport, patience_s)
    return report


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
    )
