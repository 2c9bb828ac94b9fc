from pathlib import Path

from stepstream import outbox as module
from stepstream import process
from stepstream.framer import Sealed
from stepstream.notices import Notices
from stepstream.outbox import Outbox
from stepstream.spool.reader import SpoolReader
from stepstream.spool.writer import SpoolWriter

RUN_ID = "cd" * 16


def outbox(directory: Path, *, max_bytes: int = 2**30, segment_bytes: int = 2**20) -> Outbox:
    spool = SpoolWriter(
        directory,
        run_id=RUN_ID,
        writer=5,
        owner=process.current(),
        tracking_uri="http://t",
        experiment="e",
        created_ms=1,
        max_bytes=max_bytes,
        min_free_bytes=0,
        segment_bytes=segment_bytes,
    )
    return Outbox(spool, SpoolReader(directory, RUN_ID, 5), Notices())


def sealed(seq: int, size: int = 100, points: int = 10) -> Sealed:
    return Sealed(seq=seq, points=points, data=bytes([seq % 256]) * size)


def test_a_frame_is_unsettled_until_it_is_settled(tmp_path):
    box = outbox(tmp_path)
    for seq in (1, 2, 3):
        assert box.put(sealed(seq))
    arrived = box.arrivals()
    assert [one.seq for one in arrived] == [1, 2, 3]
    assert box.arrivals() == []
    assert [box.read(one) for one in arrived] == [sealed(seq).data for seq in (1, 2, 3)]
    assert (box.unsettled.frames, box.unsettled.points, box.unsettled.bytes) == (3, 30, 300)
    box.settle(arrived[:2])
    assert (box.unsettled.frames, box.lowest_seq()) == (1, 3)
    box.settle(arrived[:2])  # an answer that comes twice
    assert box.unsettled.frames == 1


def test_waiting_ends_when_every_lower_number_is_settled(tmp_path):
    box = outbox(tmp_path)
    for seq in (1, 2, 3):
        box.put(sealed(seq))
    first, second, third = box.arrivals()
    box.settle([third])
    assert not box.wait(2, 0.01)
    box.settle([first, second])
    assert box.wait(3, 0.01)


def test_a_segment_goes_once_all_its_frames_are_settled_in_any_order(tmp_path):
    box = outbox(tmp_path, segment_bytes=1000)
    for seq in range(1, 31):
        box.put(sealed(seq))
    before = len(list(tmp_path.iterdir()))
    box.settle(reversed(box.arrivals()))
    after = len(list(tmp_path.iterdir()))
    assert before > 2
    assert after == 1  # the segment that is still written to
    box.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_unsettled_stays_on_disk_after_closing(tmp_path):
    box = outbox(tmp_path)
    box.put(sealed(1))
    box.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".seg"]


def test_a_full_spool_falls_back_to_memory_and_then_drops_and_counts(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_BYTES", 250)
    box = outbox(tmp_path, max_bytes=600)
    taken = [box.put(sealed(seq)) for seq in range(1, 12)]
    assert taken.count(False) >= 1
    assert taken.index(False) >= 3
    assert box.points_dropped == 10 * taken.count(False)
    pending = box.arrivals()
    assert sum(isinstance(one.place, bytes) for one in pending) == 2
    assert [box.read(one) for one in pending] == [sealed(one.seq).data for one in pending]
    assert caplog.text.count("takes no more") == 1
    box.settle(pending)
    assert box.put(sealed(20))
    assert box.unsettled.frames == 1


def test_the_sender_is_told_of_each_frame(tmp_path):
    box = outbox(tmp_path)
    told = []
    box.notify = lambda: told.append(box.unsettled.frames)
    box.put(sealed(1))
    box.put(sealed(2))
    assert told == [1, 2]
