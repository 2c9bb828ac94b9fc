"""`stepstream demo` as it is typed, and what it says when a point is missing."""

import asyncio
import re
import shutil
import subprocess
import sys

import pytest

from stepstream.demo import command
from tests.e2e import stored
from tests.servers import database_url_of


@pytest.fixture
def directory(initialised_directory, tmp_path):
    """A data directory that need not be made first."""
    return shutil.copytree(initialised_directory, tmp_path / "demo")


def numbers(said: str) -> tuple[int, int]:
    """Points logged and stored, as the demo prints them."""
    found = re.findall(r"points (?:logged|stored)\s+([\d,]+)", said)
    logged, kept = (int(number.replace(",", "")) for number in found)
    return logged, kept


def test_the_demo_trains_counts_every_point_and_succeeds(directory):
    typed = [sys.executable, "-m", "stepstream.cli", "demo", "--ranks=2", "--seconds=2", f"--data-dir={directory}"]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every point that was logged is stored." in done.stdout
    logged, kept = numbers(done.stdout)
    assert logged == kept > 2 * 100 * 50


def test_the_demo_fails_when_a_point_is_missing(directory, monkeypatch, capsys):
    """The loss is real: a frame goes from the table before the demo counts."""
    trained = command._train

    def and_lose_a_frame(*arguments):
        reports = trained(*arguments)
        sql = "DELETE FROM frames WHERE ctid = (SELECT ctid FROM frames WHERE points > 0 LIMIT 1) RETURNING points"
        rows = asyncio.run(stored.fetch(database_url_of(directory), sql))
        lost.append(rows[0]["points"])
        return reports

    lost: list[int] = []
    monkeypatch.setattr(command, "_train", and_lose_a_frame)
    assert command.run(ranks=1, seconds=1.0, data_dir=directory) == 1
    said = capsys.readouterr()
    logged, kept = numbers(said.out)
    assert logged - kept == lost[0]
    assert f"{lost[0]:,} points are missing" in said.err
    assert "Every point" not in said.out


def test_the_demo_fails_when_a_rank_ends_early(directory, monkeypatch, capsys):
    monkeypatch.setattr(command, "_train", lambda *arguments: [{"points": 1}])  # what a rank that died has said
    assert command.run(ranks=1, seconds=1.0, data_dir=directory) == 1
    assert "rank 0 ended early" in capsys.readouterr().err
