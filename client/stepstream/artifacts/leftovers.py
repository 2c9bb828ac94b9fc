"""Sends what killed processes noted and could not upload."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepstream import process
from stepstream.artifacts import pending
from stepstream.artifacts.batch import Batch
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.item import REWRITTEN, Item
from stepstream.artifacts.pending import PendingCall, PendingFile
from stepstream.artifacts.remote import Remote
from stepstream.artifacts.source import FileSource
from stepstream.notices import LOGGER
from stepstream.process import ProcessId

FOREIGN_QUIET_S: Final = 3600.0
"""A note of another host is left alone until it has been quiet for so long."""
MAX_TRIES: Final = 3
AGAIN_S: Final = 1.0
"""Before the second try, and twice that before the third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A note that stays as it is."""

    note: Path
    reason: str


def find(spool_dir: Path, *, everything: bool) -> Iterator[PendingCall | Left]:
    """Notes of ended runs and of dead processes, as far as this host can tell; with `everything` of quiet others.

    What else there is stays, each with the reason.
    """
    here = process.current()
    left: list[Left] = []

    def unread(note: Path, error: Exception) -> None:
        left.append(Left(note=note, reason=f"what is noted of artifacts cannot be read: {error!r:.200}"))

    for call in _read(pending.folder(spool_dir), unread):
        try:
            reason = _reason(call, here, everything=everything)
        except FileNotFoundError:
            continue  # another has sent it meanwhile
        except OSError as error:
            reason = str(error)
        if reason:
            left.append(Left(note=call.note, reason=f"{len(call.files)} artifacts of run {call.run_id}: {reason}"))
        else:
            yield call
    yield from left


def _read(folder: Path, unread: Callable[[Path, Exception], None]) -> Iterator[PendingCall]:
    try:
        yield from pending.read_all(folder, unread)
    except OSError as error:
        unread(folder, error)


def _reason(call: PendingCall, here: ProcessId, *, everything: bool) -> str:
    """Why it is not sent; empty where it is."""
    if call.owner is None:
        return ""
    dead = process.is_dead(call.owner, here)
    if dead is None:
        if not everything:
            return f"their process ran on {call.owner.host}; --everything takes them"
        is_quiet = time.time() - call.note.stat().st_mtime > FOREIGN_QUIET_S
        return "" if is_quiet else f"{call.owner.host} noted them within the hour and may still be running"
    return "" if dead else "their process is running and uploads them"


async def deliver(call: PendingCall, tracking_uri: str, token: str | None) -> tuple[int, list[str]]:
    """Upload the files of one note: how many are stored, and what cannot be. Raises Unavailable, Rejected.

    What is not stored stays noted, and its copy in the spool, as long as there is anything to send.
    """
    handle = Upload("", len(call.files))
    files = {_item(file, handle): file for file in call.files}
    items, stored, problems = list(files), [], []
    async with Remote(tracking_uri, token) as remote:
        for number in range(MAX_TRIES):
            await asyncio.sleep(AGAIN_S * number)
            batch = Batch(remote, call.run_id, call.rank)
            await batch.send(items)
            stored += [files[item] for item in batch.stored]
            for item in batch.stored:
                if item.was_rewritten:
                    LOGGER.warning("stepstream: %s", REWRITTEN.format(path=item.path))
            problems += [reason for _, reason in batch.failed]
            items = [item for item, _ in batch.again]
            if not items:
                break
    problems += [reason for _, reason in batch.again]
    try:
        _settle(call, stored)
    except OSError as error:
        problems.append(f"{call.note.name}: {error}; what was sent stays noted, and will be sent once more")
    return len(stored), problems


def _settle(call: PendingCall, stored: Sequence[PendingFile]) -> None:
    # What is gone cannot be sent later either; the note keeps all else.
    done = set(stored)
    left = [file for file in call.files if file not in done and not _is_gone(file)]
    if left:
        pending.rewrite(call, left)
        pending.forget_files(stored)
    else:
        pending.forget(call.note, call.files)


def _is_gone(file: PendingFile) -> bool:
    try:
        os.stat(file.local)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # a disk that is away comes back
    return False


def _item(file: PendingFile, handle: Upload) -> Item:
    return Item(
        path=file.path,
        source=FileSource(Path(file.local), logged=file.version),
        content_type=file.content_type,
        logged_at_ms=file.logged_at_ms,
        handle=handle,
    )
