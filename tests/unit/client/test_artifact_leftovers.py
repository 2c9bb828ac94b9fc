"""What `stepstream sync` does with the notes of others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from stepstream import process
from stepstream.artifacts import leftovers, pending
from stepstream.artifacts.pending import PendingCall, PendingFile
from stepstream.artifacts.source import Version


def noted(spool: Path, count: int) -> PendingCall:
    """As a process has left it, of so many files."""
    folder = pending.folder(spool)
    folder.mkdir()
    files = tuple(
        PendingFile(
            path=f"{number}",
            local=str(folder / f"t-{number}.data"),
            content_type="a/b",
            logged_at_ms=1,
            is_ours=True,
            version=Version(1, number),
        )
        for number in range(count)
    )
    call = PendingCall(
        note=folder / "t.json",
        tracking_uri="http://127.0.0.1:9",
        run_id="ab" * 16,
        rank=None,
        owner=process.current(),
        files=files,
    )
    pending.replace_note(call.note, pending.text(call))
    return call


def test_settling_a_note_looks_at_each_of_its_files_once(tmp_path, monkeypatch):
    call = noted(tmp_path, 300)
    compared = [0]

    def counted(one: PendingFile, other: object) -> bool:
        compared[0] += 1
        return one is other

    monkeypatch.setattr(PendingFile, "__eq__", counted)
    leftovers._settle(call, call.files)
    assert compared[0] <= len(call.files)
    assert list(pending.folder(tmp_path).iterdir()) == []


def test_a_note_that_another_sync_has_removed_meanwhile_is_nobodys(tmp_path, monkeypatch):
    call = noted(tmp_path, 1)

    def gone_meanwhile(*_: Any) -> None:
        """Whether it is dead: this host cannot tell."""
        call.note.unlink()

    monkeypatch.setattr(process, "is_dead", gone_meanwhile)
    assert list(leftovers.find(tmp_path, everything=True)) == []


def test_a_file_of_which_nothing_can_be_said_now_stays_noted(tmp_path):
    """As on a share whose server is away; here by a name that no disk looks up."""
    call = noted(tmp_path, 3)
    away = replace(call.files[1], local=str(tmp_path / ("n" * 300)))
    leftovers._settle(replace(call, files=(call.files[0], away, call.files[2])), call.files[:1])
    (left,) = pending.read_all(pending.folder(tmp_path))
    assert left.files == (away,)


async def test_a_note_that_cannot_be_removed_is_a_problem_and_ends_nothing(tmp_path):
    call = replace(noted(tmp_path, 1), files=(), note=tmp_path)
    stored, (problem,) = await leftovers.deliver(call, "http://127.0.0.1:9", None)
    assert stored == 0
    assert "stays noted" in problem
