import ctypes
import dataclasses
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream import process

PR_SET_NAME = 15
FIELDS = "S 1 17 17 0 -1 4194304 100 0 0 0 5 3 0 0 20 0 1 0 735516 1000 200 18446744073709551615"

only_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


@given(st.text(max_size=15))
def test_the_start_is_found_whatever_the_command_is_called(command):
    assert process.parse_stat_start(f"17 ({command}) {FIELDS}") == "735516"


@pytest.mark.parametrize("command", ["a b", ") S 1 2 3", "((", "))", "\n", ""])
def test_spaces_and_parentheses_in_a_command_do_not_shift_the_fields(command):
    assert process.parse_stat_start(f"17 ({command}) {FIELDS}") == "735516"


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_zombie_has_ended(state):
    assert process.parse_stat_start(f"17 (python) {FIELDS.replace('S', state, 1)}") == ""


def test_this_process_and_its_parent_are_alive():
    here = process.current()
    assert here.pid == os.getpid()
    assert here.start
    assert here.boot_id
    assert process.is_dead(here, here) is False
    assert process.is_dead(process.parent(), here) is False


def test_the_same_process_is_always_told_the_same_way():
    assert process.current() == process.current() == process.of(os.getpid())


def test_a_child_is_alive_until_it_ends_and_dead_before_it_is_waited_for():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    identity = process.of(child.pid)
    assert process.is_dead(identity, process.current()) is False
    child.stdin.close()
    child.stdout.read()  # it has closed its files; a moment later it is a zombie
    while process.start_of(child.pid):
        pass
    assert process.is_dead(identity, process.current()) is True
    child.wait()
    child.stdout.close()
    assert process.is_dead(identity, process.current()) is True


@only_linux
def test_a_forked_child_is_another_process():
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, f"{process.current().pid} {process.current() == HERE}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() == f"{pid} False"
    os.close(reading)
    os.close(writing)


HERE = process.current()


def test_what_another_host_runs_cannot_be_told():
    assert process.is_dead(replace(HERE, host="elsewhere"), HERE) is None


def test_whatever_ran_in_another_boot_is_dead():
    assert process.is_dead(replace(HERE, boot_id="another"), HERE) is True


def test_a_reused_process_number_is_another_process():
    assert process.is_dead(replace(HERE, start="1"), HERE) is True


def test_a_process_whose_start_was_never_known_is_not_called_dead():
    assert process.is_dead(replace(HERE, start=""), HERE) is None


@only_linux
def test_a_name_that_is_no_utf8_does_not_hide_a_process():
    script = f"""
import ctypes
from stepstream import process
before = process.current()
ctypes.CDLL(None).prctl({PR_SET_NAME}, b"\\xc3) S 1 \\xe9", 0, 0, 0)
assert process.current() == before, (process.current(), before)
"""
    assert ctypes.CDLL(None).prctl
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps here")
def test_ps_tells_a_start_where_there_is_no_proc_in_any_time_zone(monkeypatch):
    start = process.start_from_ps(os.getpid())
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert process.start_from_ps(os.getpid()) == start != ""
    assert process.start_from_ps(2**22 + 1) == ""


def test_without_ps_a_start_is_not_known_and_nothing_is_raised(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert process.start_from_ps(os.getpid()) == ""


def test_a_process_of_another_container_can_be_told_neither_dead_nor_alive():
    here = process.current()
    assert process.is_dead(dataclasses.replace(here, namespace="pid:[1]"), here) is None
    assert process.is_dead(here, here) is False


RANK = "import os; from stepstream import identity, process; print(process.launcher(identity.launched(os.environ)).pid)"


def launcher_seen_by(command: list[str], **environ: str) -> int:
    """By a rank that this very process launches."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(command, env=inherited | environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@only_linux
def test_a_wrapper_between_a_launcher_and_its_ranks_is_not_taken_for_the_launcher():
    said = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    rank = [sys.executable, "-c", RANK]
    # A shell that has something left to do stays, and is the parent.
    wrapped = ["sh", "-c", 'sh -c \'"$0" "$@"; true\' "$0" "$@"; true', *rank]
    for command in (rank, wrapped):
        assert launcher_seen_by(command, **said) == os.getpid()
    # Who sets a variable anew for what it starts is a launcher, whatever else it was given.
    agent = ["sh", "-c", 'RANK=5 "$0" "$@"; true', *rank]
    assert launcher_seen_by(agent, **said) not in (os.getpid(), os.getppid())


@only_linux
def test_without_a_launcher_the_parent_counts():
    wrapped = ["sh", "-c", '"$0" "$@"; true', sys.executable, "-c", RANK]
    assert launcher_seen_by(wrapped) not in (os.getpid(), os.getppid())


@only_linux
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a process namespace needs root")
def test_a_launcher_may_be_the_first_process_of_a_container():
    said = "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2"
    started = f'{said} sh -c \'"$0" "$@"; true\' "$0" "$@"; true'
    container = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", started, sys.executable, "-c", RANK]
    assert launcher_seen_by(container) == 1
