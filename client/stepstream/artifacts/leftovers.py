"""Sends what killed processes noted and could not upload."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stepstream import process
from stepstream.artifacts import pending
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.pending import PendingCall
from stepstream.artifacts.remote import Remote
from stepstream.artifacts.sending import Batch, Item
from stepstream.artifacts.source import FileSource

FOREIGN_QUIET_S: Final = 3600.0
"""A note of another host is left alone until it has been quiet for so long."""
MAX_TRIES: Final = 3


def find(spool_dir: Path, *, everything: bool) -> Iterator[PendingCall]:
    """Notes whose process is dead, as this host can tell; with `everything` also quiet ones of other hosts."""
    here = process.current()
    for call in pending.read_all(pending.folder(spool_dir)):
        dead = process.is_dead(call.owner, here)
        if dead is None:
            dead = everything and time.time() - call.note.stat().st_mtime > FOREIGN_QUIET_S
        if dead:
            yield call


async def deliver(call: PendingCall, tracking_uri: str, token: str | None) -> tuple[int, list[str]]:
    """Upload the files of one note: how many are stored, and what cannot be. Raises Unavailable, Rejected."""
    handle = Upload("", len(call.files))
    items = [
        Item(
            path=file.path,
            source=FileSource(Path(file.local)),
            content_type=file.content_type,
            logged_at_ms=file.logged_at_ms,
            handle=handle,
        )
        for file in call.files
    ]
    stored = 0
    failed: list[str] = []
    unreadable: list[str] = []
    left: list[tuple[Item, str]] = []
    async with Remote(tracking_uri, token) as remote:
        for _ in range(MAX_TRIES):
            batch = Batch(remote, call.run_id, call.rank)
            await batch.send(items)
            stored += len(batch.stored)
            failed += [reason for _, reason in batch.failed]
            unreadable += [reason for _, reason in batch.unreadable]
            left = [*batch.again, *batch.refused]
            items = [item for item, _ in left]
            if not items:
                break
    # What this host cannot read another one may; what the store refuses today it may take tomorrow.
    if not items and not unreadable:
        pending.forget(call.note, call.files)
    failed += [*unreadable, *(reason for _, reason in left)]
    return stored, failed
