"""How runs begin badly, and how they end: what is left is counted, said, and lies where the report says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stepstream
from stepstream.run import Run
from stepstream.spool import adoption
from stepstream.spool.segment import read_entries, read_header
from stepstream_schema import frame as wire
from stepstream_schema.records import Matrix, Ragged, Record, Start, Status
from tests.servers import free_port


def spooled(directory: Path) -> Iterator[Record]:
    """Every record that lies in a spool."""
    for path in sorted(adoption.find_segments(directory)):
        with path.open("rb") as file:
            read_header(file)
            for entry in read_entries(file):
                yield from wire.decode(entry.payload).records


def statuses(directory: Path) -> list[str]:
    """By event time."""
    said = [record for record in spooled(directory) if isinstance(record, Status)]
    return [record.status for record in sorted(said, key=lambda record: record.time_ms)]


def points(directory: Path) -> int:
    return sum(record.points for record in spooled(directory) if isinstance(record, Matrix | Ragged))


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Run]:
    """Starts runs whose server is away."""

    def start(**options: object) -> Run:
        said = {"tracking_uri": f"http://127.0.0.1:{free_port()}", "spool_dir": tmp_path / "spool", **options}
        return stepstream.start_run(**said)  # type: ignore[arg-type]

    return start


def test_a_run_lives_whatever_its_name_and_its_user_are(start, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("USER", "caf\udce9")
    run = start(run_name="train\0\udce9.py")
    run.log({"loss": 1.0}, step=0)
    report = run.finish(timeout=0.3)
    assert report.points_left == 1
    (said,) = [record for record in spooled(tmp_path / "spool") if isinstance(record, Start)]
    assert (said.name, said.user) == (run.name, "caf?")
    assert run.name == "train\ufffd?.py"
    assert caplog.text.count("a name cannot be stored as it is") == 1
