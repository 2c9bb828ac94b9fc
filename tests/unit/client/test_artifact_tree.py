"""Which files of a directory are logged."""

import os
from pathlib import Path
from typing import Any

from stepstream.artifacts.tree import files_below


def paths(root: Path) -> tuple[list[str], list[str]]:
    found, refused = files_below(root, None)
    return sorted(file.path for file in found), refused


def test_links_to_directories_inside_are_followed(tmp_path):
    root = tmp_path / "ckpt"
    (root / "step-2").mkdir(parents=True)
    (root / "step-2" / "weights").write_text("w")
    (root / "latest").symlink_to("step-2")
    (root / "newest").symlink_to("latest")
    assert paths(root) == (["latest/weights", "newest/weights", "step-2/weights"], [])


def test_a_link_to_a_directory_that_it_lies_in_is_refused(tmp_path):
    root = tmp_path / "ckpt"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("x")
    (root / "a" / "b" / "up").symlink_to(root)
    (root / "a" / "b" / "self").symlink_to(".")
    (root / "c").symlink_to("a")
    found, refused = paths(root)
    assert found == ["a/file", "c/file"]
    assert len(refused) == 4
    assert all("that it lies in" in reason for reason in refused)


def test_links_that_leave_or_lead_nowhere_are_refused(tmp_path):
    root = tmp_path / "ckpt"
    root.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret").write_text("x")
    (root / "out").symlink_to("../out")
    (root / "nowhere").symlink_to("none")
    found, refused = paths(root)
    assert found == []
    assert len(refused) == 2


def test_a_directory_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    root = tmp_path / "ckpt"
    (root / "locked").mkdir(parents=True)
    (root / "open").write_text("x")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        # Whoever runs the tests may read everything.
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, refused = paths(root)
    assert found == ["open"]
    assert refused == [f"{root / 'locked'} cannot be read: Permission denied"]
