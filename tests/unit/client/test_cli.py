"""The command line: a command is there without the imports of the others."""

import subprocess
import sys

import pytest

from stepstream import cli

LOADED = """
import sys
from stepstream import cli
try:
    cli.main(sys.argv[1:])
except SystemExit:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-c", LOADED, *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


def test_a_command_waits_for_the_imports_of_no_other() -> None:
    loaded = loaded_by("sync", "--help")
    assert cli.BUILT_IN["sync"] in loaded
    assert loaded.isdisjoint({cli.BUILT_IN["import"], cli.BUILT_IN["demo"], "stepstream_ingest.cli"})


def test_the_parent_of_a_servers_workers_carries_neither_the_client_nor_aiohttp() -> None:
    loaded = loaded_by("server", "--help")
    assert "stepstream_ingest.supervisor" in loaded
    assert loaded.isdisjoint({*cli.BUILT_IN.values(), "aiohttp", "numpy"})


@pytest.mark.parametrize("arguments", [["--help"], ["no such command"]])
def test_who_names_no_command_is_told_of_all(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    said = "".join(capsys.readouterr())
    assert all(name in said for name in [*cli.BUILT_IN, "server"])


def test_without_a_command_it_says_that_one_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    assert "required: COMMAND" in capsys.readouterr().err
