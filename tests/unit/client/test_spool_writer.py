import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream import process
from stepstream.errors import SpoolDamaged
from stepstream.spool import adoption, names
from stepstream.spool.ledger import Ledger
from stepstream.spool.reader import MAX_OPEN_FILES, SpoolReader
from stepstream.spool.segment import read_entries, read_header
from stepstream.spool.writer import Location, SpoolWriter

RUN_ID = "ab" * 16


def writer_in(
    directory: Path, *, max_bytes: int = 2**30, min_free_bytes: int = 0, segment_bytes: int = 8 * 2**20
) -> SpoolWriter:
    return SpoolWriter(
        directory,
        run_id=RUN_ID,
        writer=7,
        owner=process.current(),
        tracking_uri="http://t",
        experiment="e",
        created_ms=5,
        max_bytes=max_bytes,
        min_free_bytes=min_free_bytes,
        segment_bytes=segment_bytes,
    )


def reader_in(directory: Path) -> SpoolReader:
    return SpoolReader(directory, RUN_ID, 7)


def files(directory: Path) -> list[str]:
    return sorted(path.name.split("-", 2)[2] for path in directory.iterdir())


def delivered_from(directory: Path) -> list[bytes]:
    """What `stepstream sync` would find: every frame of every segment, by number."""
    found: list[bytes] = []
    for path in sorted(adoption.find_segments(directory)):
        with path.open("rb") as file:
            read_header(file)
            found += [entry.payload for entry in read_entries(file)]
    return found


class FileSizeLimit:
    """A disk that takes no more than this many bytes a file, for as long as it is entered."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __enter__(self) -> None:
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._most, self._limits[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        signal.signal(signal.SIGXFSZ, self._handler)


def test_nothing_is_created_before_the_first_frame(tmp_path):
    spool = writer_in(tmp_path / "spool")
    spool.close(keep=True)
    assert not (tmp_path / "spool").exists()


def test_a_segment_that_somebody_removes_is_written_to_no_more(tmp_path):
    spool = writer_in(tmp_path / "spool")
    spool.append(b"one")
    shutil.rmtree(tmp_path / "spool")
    place = spool.append(b"two")
    assert place.number == 2
    assert reader_in(tmp_path / "spool").read(place) == b"two"
    assert delivered_from(tmp_path / "spool") == [b"two"]


def test_the_directory_and_its_segments_are_the_users_alone(tmp_path):
    writer_in(tmp_path / "deep" / "spool").append(b"frame")
    directory = tmp_path / "deep" / "spool"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()] == [0o600]


def test_every_frame_is_read_back_from_its_location(tmp_path):
    spool, reader = writer_in(tmp_path, segment_bytes=400), reader_in(tmp_path)
    frames = [bytes([number]) * (number + 1) for number in range(200)]
    places = [spool.append(frame) for frame in frames]
    assert [reader.read(place) for place in places] == frames
    assert [reader.read(place) for place in reversed(places)] == frames[::-1]
    spool.close(keep=True)
    assert delivered_from(tmp_path) == frames


def test_a_full_segment_is_renamed_and_the_next_one_begun(tmp_path):
    spool = writer_in(tmp_path, segment_bytes=300)
    places = [spool.append(b"x" * 100) for _ in range(3)]
    assert [place.number for place in places] == [1, 2, 3]
    assert files(tmp_path) == ["00000001.seg", "00000002.seg", "00000003.open"]


def test_a_frame_larger_than_a_segment_gets_one_to_itself(tmp_path):
    spool = writer_in(tmp_path, segment_bytes=10)
    place = spool.append(b"x" * 1000)
    assert reader_in(tmp_path).read(place) == b"x" * 1000


def test_the_bound_refuses_counts_and_says_why_and_room_made_is_room(tmp_path):
    spool = writer_in(tmp_path, max_bytes=1000, segment_bytes=300)
    places = [spool.append(b"x" * 200) for _ in range(5)]
    assert places[0] is not None
    assert places[-1] is None
    assert spool.refused_frames == places.count(None)
    assert "1000 bytes" in spool.last_error
    spool.remove(places[0].number)
    assert spool.append(b"x" * 200) is not None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000 + 300


def test_a_disk_with_too_little_left_refuses(tmp_path):
    spool = writer_in(tmp_path, min_free_bytes=2**62)
    assert spool.append(b"frame") is None
    assert spool.refused_frames == 1
    assert "must stay free" in spool.last_error
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_refuses_and_is_tried_again(tmp_path):
    (tmp_path / "spool").write_text("a file is in the way")
    spool = writer_in(tmp_path / "spool")
    assert spool.append(b"one") is None
    (tmp_path / "spool").unlink()
    assert spool.append(b"two") is not None


def test_a_directory_that_was_removed_under_a_run_is_made_again_with_the_next_segment(tmp_path):
    spool = writer_in(tmp_path / "spool", segment_bytes=1)
    spool.append(b"one")
    for path in (tmp_path / "spool").iterdir():
        path.unlink()
    (tmp_path / "spool").rmdir()
    assert spool.append(b"two") is not None
    assert delivered_from(tmp_path / "spool") == [b"two"]


def test_a_write_that_the_disk_cuts_short_leaves_no_half_frame(tmp_path):
    spool, reader = writer_in(tmp_path), reader_in(tmp_path)
    before = spool.append(b"before")
    with FileSizeLimit(before.offset + before.length + 10):
        assert spool.append(b"x" * 1000) is None
    after = spool.append(b"after")
    assert (after.number, after.offset) == (1, before.offset + before.length)
    assert [reader.read(before), reader.read(after)] == [b"before", b"after"]
    assert delivered_from(tmp_path) == [b"before", b"after"]


def test_a_segment_whose_header_did_not_fit_is_not_written_to_when_room_returns(tmp_path):
    spool = writer_in(tmp_path)
    with FileSizeLimit(20):
        assert spool.append(b"one") is None
        assert spool.append(b"two") is None
    assert list(tmp_path.iterdir()) == []
    place = spool.append(b"three")
    assert reader_in(tmp_path).read(place) == b"three"
    assert delivered_from(tmp_path) == [b"three"]


def test_after_a_half_written_frame_that_cannot_be_taken_back_another_segment_begins(tmp_path, monkeypatch):
    spool, reader = writer_in(tmp_path), reader_in(tmp_path)
    before = spool.append(b"before")

    def refuse(descriptor: int, length: int) -> None:
        raise OSError("this file system cannot truncate")

    with FileSizeLimit(before.offset + before.length + 10), monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        assert spool.append(b"x" * 1000) is None
    after = spool.append(b"after")
    assert after.number == 2
    assert [reader.read(before), reader.read(after)] == [b"before", b"after"]
    with (tmp_path / next(path.name for path in tmp_path.glob("*-00000001.seg"))).open("rb") as file:
        read_header(file)
        entries = read_entries(file)
        assert next(entries).payload == b"before"
        with pytest.raises(SpoolDamaged, match="10 bytes from there on"):
            next(entries)


def test_a_segment_that_cannot_be_closed_or_renamed_does_not_stop_the_next(tmp_path):
    spool = writer_in(tmp_path, segment_bytes=1)
    spool.append(b"one")
    # What closing a file on NFS may say: here since it is closed already.
    os.close(spool._descriptor)
    assert spool.append(b"two") is not None
    assert "may be incomplete" in spool.last_error
    assert delivered_from(tmp_path) == [b"one", b"two"]


def test_what_was_appended_survives_the_kill_of_its_process(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from tests.unit.client.test_spool_writer import writer_in
spool = writer_in(Path(sys.argv[1]), segment_bytes=500)
for number in range(50):
    assert spool.append(b"frame %d" % number * 5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert delivered_from(tmp_path) == [b"frame %d" % number * 5 for number in range(50)]


@pytest.mark.parametrize("state", ["open", "seg", "claim-17.4711.b.host"])
def test_a_segment_is_removed_whatever_its_state_and_twice_is_as_good_as_once(tmp_path, state):
    spool = writer_in(tmp_path)
    place = spool.append(b"frame")
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(path.name.removesuffix("open") + state))
    (tmp_path / "junk").write_text("stays")
    spool.remove(place.number)
    spool.remove(place.number)
    assert [path.name for path in tmp_path.iterdir()] == ["junk"]


def test_a_segment_that_cannot_be_removed_now_raises_nothing_and_goes_with_the_next(tmp_path):
    spool = writer_in(tmp_path, segment_bytes=1)
    first, second = spool.append(b"one"), spool.append(b"two")
    (path,) = tmp_path.glob("*-00000001.seg")
    path.unlink()
    path.mkdir()  # which unlink refuses, for root as well
    spool.remove(first.number)
    assert "could not be removed" in spool.last_error
    path.rmdir()
    path.write_bytes(b"one again")
    spool.remove(second.number)
    assert list(tmp_path.glob("*-0000000[12].*")) == []


def test_closing_keeps_or_removes_everything(tmp_path):
    for keep in (True, False):
        spool = writer_in(tmp_path / str(keep), segment_bytes=1)
        for frame in (b"one", b"two"):
            spool.append(frame)
        spool.close(keep=keep)
        left = names.left_state(process.current())
        assert files(tmp_path / str(keep)) == ([f"00000001.{left}", f"00000002.{left}"] if keep else [])


def test_a_frame_is_read_whatever_has_become_of_its_segments_name(tmp_path):
    spool = writer_in(tmp_path)
    place = spool.append(b"frame")
    for state in ("open", "seg", "claim-17.4711.b.host"):
        (path,) = tmp_path.iterdir()
        path.rename(path.with_name(f"{path.name.partition('.')[0]}.{state}"))
        assert reader_in(tmp_path).read(place) == b"frame"
    path = next(tmp_path.iterdir())
    path.unlink()
    with pytest.raises(FileNotFoundError):
        reader_in(tmp_path).read(place)


def test_a_damaged_or_missing_frame_is_never_read_as_another(tmp_path):
    spool = writer_in(tmp_path)
    place, last = spool.append(b"one frame"), spool.append(b"two frame")
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[place.offset + place.length - 1] ^= 1
    path.write_bytes(data[:-1])
    for damaged in (place, last, Location(1, 10**9, 20)):
        with pytest.raises(SpoolDamaged):
            reader_in(tmp_path).read(damaged)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_a_reader_keeps_few_files_open_and_closes_them(tmp_path):
    spool, reader = writer_in(tmp_path, segment_bytes=1), reader_in(tmp_path)
    places = [spool.append(b"frame") for _ in range(MAX_OPEN_FILES * 3)]
    before = len(os.listdir("/proc/self/fd"))
    for place in places * 2:
        assert reader.read(place) == b"frame"
    assert len(os.listdir("/proc/self/fd")) == before + MAX_OPEN_FILES
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.data())
def test_the_ledger_gives_each_segment_out_once_and_only_when_nobody_needs_it(data):
    ledger = Ledger()
    waiting: list[Location] = []
    given_out: list[int] = []
    number = 1
    for _ in range(data.draw(st.integers(0, 40))):
        if waiting and data.draw(st.booleans()):
            place = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            done = ledger.acknowledged(place)
        else:
            number += data.draw(st.integers(0, 1))
            waiting.append(Location(number, 0, 1))
            done = ledger.sealed(waiting[-1])
        for each in done:
            assert each < number
            assert all(place.number != each for place in waiting)
        given_out += done
    assert len(given_out) == len(set(given_out))
    for place in waiting:
        given_out += ledger.acknowledged(place)
    given_out += ledger.sealed(Location(number + 1, 0, 1))
    assert len(given_out) == len(set(given_out))
