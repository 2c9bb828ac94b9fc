"""What is still to be uploaded, written down in the spool: `stepstream sync` sends what a killed process could not.

artifacts/<token>.json      the files of one call, and who logged them
artifacts/<token>-7.data    a copy of one that is small, or another name (hard link) of one that is large

Sending twice stores once, so nothing is claimed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Final

from stepstream.artifacts.source import Version
from stepstream.process import ProcessId

COPY_BYTES: Final = 2**20
"""Files up to this size are copied when they are logged: most are temporary, and gone a moment later."""
NOTE: Final = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingFile:
    """One file of a call."""

    path: str
    """In the tree of the run."""
    local: str
    """Where its bytes are: the file itself, a copy or a link."""
    content_type: str
    logged_at_ms: int
    is_ours: bool
    """A copy or a link in the spool, to be removed."""
    version: Version | None = None
    """Of what lies there, as it was when it was logged; older notes do not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCall:
    """One call of log_artifact or log_artifacts that is not yet done."""

    note: Path
    tracking_uri: str
    run_id: str
    rank: int | None
    owner: ProcessId | None
    """Who will send it, as long as it lives; None when its run has ended without it."""
    files: tuple[PendingFile, ...]


def folder(spool_dir: Path) -> Path:
    """Where the notes are."""
    return spool_dir / "artifacts"


def keep(directory: Path, token: str, number: int, local: Path, *, min_free_bytes: int) -> Path | None:
    """A copy or a link of a file, so that it outlives its owner; None where neither can be had.

    Nor can a copy be had of what is being written to.
    """
    kept = directory / f"{token}-{number}.data"
    try:
        # A link is what it leads to now: a second name for the link itself would lead nowhere from here.
        local = Path(os.path.realpath(local))
        before = Version.of(local.stat())
        if before.size <= COPY_BYTES:
            if shutil.disk_usage(directory).free < min_free_bytes:
                return None
            shutil.copyfile(local, kept)
            if Version.of(local.stat()) != before:
                # Half of one state and half of another: who sends the file itself waits until it is still.
                kept.unlink()
                return None
        else:
            os.link(local, kept)
    except OSError:
        with contextlib.suppress(OSError):  # the same trouble; what is left there is in nobody's way
            kept.unlink(missing_ok=True)
        return None
    return kept


def copied_bytes(local: Path) -> int:
    """What `keep` takes of the disk: a second name takes nothing."""
    try:
        size = local.stat().st_size
    except OSError:
        return 0  # it will be told when its turn comes
    return size if size <= COPY_BYTES else 0


def rewrite(call: PendingCall, files: Sequence[PendingFile]) -> None:
    """From now on only these are left of it. Raises OSError."""
    replace_note(call.note, text(replace(call, files=tuple(files))))


def leave(note: Path) -> None:
    """From now on it is anybody's. Raises OSError."""
    try:
        said = json.loads(note.read_text())
    except FileNotFoundError:
        return  # it was never written, or somebody has sent it
    replace_note(note, json.dumps(said | {"owner": None}))


def _raised(note: Path, error: Exception) -> None:
    raise error


def read_all(directory: Path, unread: Callable[[Path, Exception], None] = _raised) -> Iterator[PendingCall]:
    """Every note that can be read; `unread` hears of the others. Raises OSError for a directory that cannot be."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return  # no artifact was ever logged from here
    for note in (directory / name for name in names if name.endswith(NOTE)):
        try:
            said: dict[str, Any] = json.loads(note.read_text())
            call = PendingCall(
                note=note,
                tracking_uri=said["tracking_uri"],
                run_id=said["run_id"],
                rank=said["rank"],
                owner=ProcessId(**said["owner"]) if said["owner"] else None,
                files=_files(said),
            )
        except FileNotFoundError:
            continue  # another has sent it meanwhile
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            unread(note, error)
            continue
        yield call


def _files(said: dict[str, Any]) -> tuple[PendingFile, ...]:
    versions = said.get("versions") or [None] * len(said["files"])  # older notes have none
    return tuple(
        PendingFile(**file, version=Version(*version) if version else None)
        for file, version in zip(said["files"], versions, strict=True)
    )


def forget(note: Path, files: Sequence[PendingFile]) -> None:
    """The call is done."""
    note.unlink(missing_ok=True)
    forget_files(files)


def forget_files(files: Sequence[PendingFile]) -> None:
    """These files of a call are done."""
    for file in files:
        if file.is_ours:
            Path(file.local).unlink(missing_ok=True)


def text(call: PendingCall) -> str:
    """What its note says."""
    return json.dumps(
        {
            "version": 1,
            "tracking_uri": call.tracking_uri,
            "run_id": call.run_id,
            "rank": call.rank,
            "owner": call.owner.as_dict() if call.owner else None,
            # Apart: older versions read only what they know of a file.
            "files": [{name: said for name, said in asdict(file).items() if name != "version"} for file in call.files],
            "versions": [file.version and astuple(file.version) for file in call.files],
        }
    )


def replace_note(note: Path, said: str) -> None:
    """Write it, whole or not at all. Raises OSError."""
    draft = note.with_suffix(".draft")
    try:
        draft.write_text(said)
        draft.replace(note)
    except OSError:
        # A full disk takes an empty file, and one for each call.
        with contextlib.suppress(OSError):  # the same trouble, which is told
            draft.unlink(missing_ok=True)
        raise
