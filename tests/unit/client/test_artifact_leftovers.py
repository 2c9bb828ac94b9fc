"""What `stepstream sync` does with the notes of others."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepstream import cli, process
from stepstream.artifacts import leftovers, pending
from stepstream.artifacts.pending import PendingCall, PendingFile
from stepstream.artifacts.source import Version
from stepstream.process import ProcessId

ELSEWHERE = ProcessId(host="elsewhere", pid=1, start="1", boot_id="other", namespace="")


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


@pytest.mark.parametrize(
    ("owner", "quiet_s", "everything", "reason"),
    [
        (None, 0, False, ""),
        (replace(process.current(), start="1"), 0, False, ""),
        (process.parent(), 0, True, "is running and uploads them"),
        (ELSEWHERE, 2 * leftovers.FOREIGN_QUIET_S, False, "ran on elsewhere; --everything takes them"),
        (ELSEWHERE, 0, True, "elsewhere noted them within the hour"),
        (ELSEWHERE, 2 * leftovers.FOREIGN_QUIET_S, True, ""),
    ],
)
def test_a_note_is_sent_or_stays_for_a_reason(tmp_path, owner, quiet_s, everything, reason):
    call = replace(noted(tmp_path, 2), owner=owner)
    pending.replace_note(call.note, pending.text(call))
    written_s = call.note.stat().st_mtime - quiet_s
    os.utime(call.note, (written_s, written_s))
    (found,) = leftovers.find(tmp_path, everything=everything)
    if reason:
        assert isinstance(found, leftovers.Left)
        assert found.note == call.note
        assert found.reason.startswith(f"2 artifacts of run {call.run_id}: ")
        assert reason in found.reason
    else:
        assert found == call


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"files": 1}'])
def test_what_is_no_note_stays_and_keeps_none_from_the_others(tmp_path, said):
    call = replace(noted(tmp_path, 1), owner=None)
    pending.replace_note(call.note, pending.text(call))
    odd = call.note.with_name("a.json")
    odd.write_text(said)
    sent, left = leftovers.find(tmp_path, everything=False)
    assert sent == call
    assert isinstance(left, leftovers.Left)
    assert left.note == odd
    assert "cannot be read" in left.reason


def test_sync_names_what_it_leaves(tmp_path, capsys):
    call = replace(noted(tmp_path, 1), owner=ELSEWHERE)
    pending.replace_note(call.note, pending.text(call))
    assert cli.main(["sync", str(tmp_path)]) == 1
    assert f"left: t.json: 1 artifacts of run {call.run_id}: their process ran on elsewhere" in capsys.readouterr().err


def test_sync_says_in_a_sentence_what_directory_cannot_be_read(tmp_path, capsys, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "artifacts").touch()
    expected = {"none": "is not there: name the spool", "file": "Not a directory", "spool": "left: artifacts: "}
    for name, said in expected.items():
        assert cli.main(["sync", str(tmp_path / name)]) == 1
        assert said in capsys.readouterr().err
    # Nothing was ever logged from here: there is nothing to name.
    monkeypatch.setenv("STEPSTREAM_SPOOL_DIR", str(tmp_path / "none"))
    assert cli.main(["sync"]) == 0
