"""Which files of a directory are logged."""

import errno
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from stepstream.artifacts import tree
from stepstream.artifacts.tree import files_below
from stepstream.errors import ArtifactError


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


def test_links_that_lead_nowhere_are_said_by_name_and_others_are_logged(tmp_path):
    root = tmp_path / "ckpt"
    root.mkdir()
    (root / "last").symlink_to("epoch-7")
    (root / "through").symlink_to("file/below")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    (root / "file").write_text("x")
    found, refused = paths(root)
    assert found == ["file"]
    assert refused == [f"{root / name} is a link that leads nowhere" for name in ("last", "one", "through", "two")]


def test_links_that_make_few_directories_very_many_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MAX_FILES", 1000)
    root = tmp_path / "ckpt"
    for number in range(12):
        (root / f"{number}").mkdir(parents=True)
        for name in ("left", "right"):
            (root / f"{number}" / name).symlink_to(f"../{number + 1}")
    (root / "12").mkdir()
    with pytest.raises(ArtifactError, match="more than 1,000 files and directories"):
        files_below(root, None)


def test_directories_may_be_deeper_than_pythons_stack(tmp_path):
    root = folder = tmp_path / "deep"
    for _ in range(200):
        folder.mkdir()
        folder = folder / "deeper"
    folder.write_text("x")
    (root / "top").write_text("x")
    most = sys.getrecursionlimit()
    try:
        # Less of a stack rather than more directories: to look at them takes as long as the cube of their number.
        sys.setrecursionlimit(len(inspect.stack(0)) + 150)
        found, refused = paths(root)
    finally:
        sys.setrecursionlimit(most)
        # Nor is what removes temporary directories made for this.
        folder.unlink()
        while folder.parent != root:
            folder = folder.parent
            folder.rmdir()
    assert found == ["top"]
    assert "longer than 1000 bytes" in refused[0]


def test_what_may_be_listed_and_not_looked_at_is_told(tmp_path, monkeypatch):
    root = tmp_path / "ckpt"
    (root / "listed").mkdir(parents=True)
    (root / "listed" / "file").write_text("x")
    (root / "open").write_text("x")
    look = Path.stat

    def refuse(path: Path, **options: Any) -> os.stat_result:
        # Whoever runs the tests may look at everything.
        if path.parent.name == "listed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    found, refused = paths(root)
    assert found == ["open"]
    assert refused == [f"{root / 'listed' / 'file'} cannot be read: Permission denied"]


def test_what_cannot_even_be_looked_at_is_said_as_such(tmp_path):
    too_long = tmp_path / ("a" * 300)
    for look in (tree.is_file, tree.is_directory):
        with pytest.raises(ArtifactError, match="cannot be read: File name too long"):
            look(too_long)
    with pytest.raises(ArtifactError, match="cannot be read: File name too long"):
        files_below(too_long, None)
    (tmp_path / "file").write_text("x")
    assert (tree.is_file(tmp_path / "file"), tree.is_directory(tmp_path / "file")) == (True, False)
    assert (tree.is_file(tmp_path / "none"), tree.is_directory(tmp_path)) == (False, True)
