"""Sends what killed processes noted and could not upload."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
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

FOREIGN_QUIET_S: Final = 3600.0
"""A note of another host is left alone until it has been quiet for so long."""
MAX_TRIES: Final = 3
AGAIN_S: Final = 1.0
"""Before the second try, and twice that before the third."""


def find(spool_dir: Path, *, everything: bool) -> Iterator[PendingCall]:
    """Notes of ended runs and of dead processes, as far as this host can tell; with `everything` of quiet others."""
    here = process.current()
    for call in pending.read_all(pending.folder(spool_dir)):
        dead = call.owner is None or process.is_dead(call.owner, here)
        if dead is None:
            dead = everything and _quiet_s(call.note) > FOREIGN_QUIET_S
        if dead:
            yield call


def _quiet_s(note: Path) -> float:
    try:
        return time.time() - note.stat().st_mtime
    except OSError:
        return 0.0  # another has sent it meanwhile, and removed it


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
