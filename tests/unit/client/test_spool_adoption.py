import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream import process
from stepstream.errors import SpoolDamaged
from stepstream.process import ProcessId
from stepstream.spool import adoption, names
from stepstream.spool.adoption import FOREIGN_QUIET_S, verdict
from stepstream.spool.segment import SegmentHeader, encode_entry, encode_header

RUN_ID = "ab" * 16
HERE = process.current()
ELSEWHERE = replace(HERE, host="another-host")
LAST_BOOT = replace(HERE, boot_id="another-boot")
REUSED_PID = replace(HERE, start="1")


@pytest.fixture
def dead() -> ProcessId:
    """A process of this host that has ended."""
    return _run_to_its_end()


@pytest.fixture
def alive() -> Iterator[ProcessId]:
    """Another process of this host that runs."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.of(child.pid)
    child.communicate()


def _run_to_its_end() -> ProcessId:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process.of(child.pid)
    child.communicate()
    return identity


def left_by(owner: ProcessId, directory: Path, *, state: str = "open", number: int = 1) -> Path:
    """A segment with one frame, as its writer would leave it."""
    header = SegmentHeader(
        run_id=RUN_ID, writer=7, number=number, owner=owner, tracking_uri="u", experiment="e", created_ms=5
    )
    path = directory / str(names.SegmentName(RUN_ID, 7, number, state))
    path.write_bytes(encode_header(header) + encode_entry(b"frame"))
    return path


def judge(path: Path, *, everything: bool = False) -> str:
    return adoption.judge(path, adoption.header_of(path), everything=everything)


def claim_as(path: Path, claimer: ProcessId) -> Path:
    """The segment, claimed by another process: as `claim` names it."""
    target = path.with_name(f"{path.name.partition('.')[0]}.claim-{names.token(claimer)}")
    return path.rename(target)


def test_segments_are_found_among_junk(tmp_path):
    paths = {left_by(HERE, tmp_path, number=number) for number in (1, 2)}
    for junk in ("notes.txt", ".hidden", f"{RUN_ID}-x.seg", "core.123"):
        (tmp_path / junk).write_text("junk")
    (tmp_path / "folder").mkdir()
    os.symlink("nowhere", tmp_path / "link")
    assert set(adoption.find_segments(tmp_path)) == paths


def test_a_spool_that_is_not_there_holds_nothing(tmp_path):
    assert list(adoption.find_segments(tmp_path / "none")) == []


def test_segments_are_found_one_by_one_and_not_as_a_list(tmp_path):
    for number in range(1, 4):
        left_by(HERE, tmp_path, number=number)
    found = adoption.find_segments(tmp_path)
    assert iter(found) is found
    assert next(found).parent == tmp_path


@pytest.mark.parametrize("state", ["open", "seg"])
def test_a_dead_writers_segment_is_taken_and_a_living_ones_never(tmp_path, dead, alive, state):
    assert judge(left_by(dead, tmp_path, state=state)) == "take"
    for owner in (alive, HERE):
        for everything in (False, True):
            assert judge(left_by(owner, tmp_path, state=state), everything=everything) == "alive"


@pytest.mark.parametrize("owner", [LAST_BOOT, REUSED_PID], ids=["another boot", "a reused process number"])
def test_a_writer_of_another_boot_or_with_a_reused_process_number_is_dead(tmp_path, owner):
    assert judge(left_by(owner, tmp_path)) == "take"


def test_another_hosts_segment_is_taken_only_when_asked_for_and_when_quiet(tmp_path):
    path = left_by(ELSEWHERE, tmp_path)
    assert judge(path) == "foreign"
    assert judge(path, everything=True) == "recent"
    long_ago = time.time() - FOREIGN_QUIET_S - 10
    os.utime(path, (long_ago, long_ago))
    assert judge(path) == "foreign"
    assert judge(path, everything=True) == "take"


def test_another_hosts_closed_segment_is_taken_at_once_when_asked_for(tmp_path):
    path = left_by(ELSEWHERE, tmp_path, state="seg")
    assert judge(path) == "foreign"
    assert judge(path, everything=True) == "take"


def test_what_a_living_process_has_claimed_is_left_to_it(tmp_path, dead, alive):
    assert judge(claim_as(left_by(dead, tmp_path), alive), everything=True) == "alive"


@pytest.mark.parametrize("claimer", [LAST_BOOT, REUSED_PID], ids=["another boot", "a reused process number"])
def test_what_a_dead_process_has_claimed_can_be_taken_again(tmp_path, dead, claimer):
    assert judge(claim_as(left_by(ELSEWHERE, tmp_path), claimer)) == "take"
    assert judge(claim_as(left_by(ELSEWHERE, tmp_path), dead)) == "take"


def test_what_another_host_has_claimed_is_taken_only_when_asked_for_and_when_quiet(tmp_path, dead):
    path = claim_as(left_by(dead, tmp_path), ELSEWHERE)
    assert judge(path) == "foreign"
    assert judge(path, everything=True) == "recent"


@given(
    state=st.sampled_from(["open", "seg", "claim-1.2.3.4"]),
    owner=st.sampled_from([HERE, ELSEWHERE, LAST_BOOT, REUSED_PID]),
    quiet_s=st.floats(-1e6, 1e6),
    everything=st.booleans(),
    claimer_dead=st.sampled_from([None, True, False]),
)
def test_asking_for_everything_never_takes_less_and_never_from_the_living(
    state, owner, quiet_s, everything, claimer_dead
):
    facts = {"state": state, "owner": owner, "here": HERE, "quiet_s": quiet_s, "claimer_dead": claimer_dead}
    some, all_of_it = verdict(everything=False, **facts), verdict(everything=True, **facts)
    assert some != "take" or all_of_it == "take"
    if not state.startswith("claim-"):
        assert (all_of_it == "alive") == (owner == HERE)


def test_a_segment_is_claimed_once(tmp_path):
    path = left_by(HERE, tmp_path)
    claimed = adoption.claim(path)
    assert claimed is not None
    assert claimed.exists()
    assert adoption.claim(path) is None
    assert list(adoption.find_segments(tmp_path)) == [claimed]
    assert judge(claimed, everything=True) == "alive"


def test_of_many_processes_exactly_one_gets_each_segment(tmp_path):
    paths = [left_by(LAST_BOOT, tmp_path, number=number) for number in range(1, 41)]
    script = """
import sys
from pathlib import Path
from stepstream.spool import adoption
input()
print(sum(adoption.claim(Path(path)) is not None for path in sys.argv[1:]))
"""
    command = [sys.executable, "-c", script, *map(str, paths)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ}
    children = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    counts = [int(child.communicate()[0]) for child in children]
    assert sum(counts) == len(paths)
    assert all(".claim-" in path.name for path in adoption.find_segments(tmp_path))


@pytest.mark.parametrize("state", ["open", "seg", names.left_state(HERE)], ids=["open", "closed", "left"])
def test_what_is_given_back_has_the_name_it_had_and_can_be_claimed_again(tmp_path, state):
    path = left_by(HERE, tmp_path, state=state)
    claimed = adoption.claim(path)
    assert adoption.release(claimed, HERE) == path
    assert adoption.claim(path) is not None


def test_a_claim_of_an_older_version_is_given_back_as_closed(tmp_path):
    claimed = claim_as(left_by(LAST_BOOT, tmp_path), HERE)
    released = adoption.release(claimed, LAST_BOOT)
    assert released is not None
    assert released.name.endswith("-00000001.seg")


@pytest.mark.parametrize("everything", [False, True])
def test_what_a_writer_left_behind_is_taken_while_its_process_lives(tmp_path, alive, everything):
    for owner in (HERE, alive):
        assert judge(left_by(owner, tmp_path, state=names.left_state(owner)), everything=everything) == "take"


def test_what_a_writer_left_behind_on_another_host_is_taken_at_once_when_asked_for(tmp_path):
    path = left_by(ELSEWHERE, tmp_path, state=names.left_state(ELSEWHERE))
    assert judge(path) == "foreign"
    assert judge(path, everything=True) == "take"


def test_to_an_older_version_what_a_writer_left_behind_is_claimed_by_a_process_that_is_dead(tmp_path):
    """Its `_claimer_dead` reads the same five parts, and knows no other sort of claim."""
    name = names.SegmentName(RUN_ID, 7, 1, names.left_state(HERE))
    assert names.parse(Path(str(name))) == name
    assert adoption._claimer_dead(name.state, HERE)


def test_only_what_lies_behind_a_header_is_a_frame(tmp_path):
    path = left_by(HERE, tmp_path)
    assert adoption.holds_frames(path)
    data = path.read_bytes()
    path.write_bytes(data[: -len(encode_entry(b"frame"))])
    assert not adoption.holds_frames(path)
    path.write_bytes(b"")
    assert not adoption.holds_frames(path)
    path.write_bytes(bytes(50) + data)
    assert adoption.holds_frames(path)


def test_giving_back_what_is_gone_is_no_error(tmp_path):
    claimed = adoption.claim(left_by(LAST_BOOT, tmp_path))
    claimed.unlink()
    assert adoption.release(claimed, LAST_BOOT) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["node-1.example.org", "höst", "a b/c", ""])
def test_a_claim_is_a_segments_name_whatever_the_host_is_called(host):
    state = f"claim-{names.token(replace(HERE, host=host, start='Mon Nov 23 11:50:31 2026'))}"
    name = names.SegmentName(RUN_ID, 7, 1, state)
    assert names.parse(Path(str(name))) == name


def test_lower_segments_are_seen_in_whatever_hands(tmp_path):
    assert not adoption.lower_segments(tmp_path, RUN_ID, 7, 2)
    lower = left_by(HERE, tmp_path, number=1)
    left_by(HERE, tmp_path, number=2)
    assert adoption.lower_segments(tmp_path, RUN_ID, 7, 2)
    assert not adoption.lower_segments(tmp_path, RUN_ID, 7, 1)
    assert not adoption.lower_segments(tmp_path, RUN_ID, 8, 2)
    assert not adoption.lower_segments(tmp_path, "cd" * 16, 7, 2)
    adoption.claim(lower)
    assert adoption.lower_segments(tmp_path, RUN_ID, 7, 2)


def test_a_file_with_a_segments_name_and_other_bytes_is_damage(tmp_path):
    path = left_by(HERE, tmp_path)
    path.write_bytes(b"something else")
    with pytest.raises(SpoolDamaged):
        adoption.header_of(path)
