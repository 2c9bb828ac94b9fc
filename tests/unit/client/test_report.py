"""What finish() says of a run that is not delivered whole."""

from pathlib import Path

from stepstream.report import FinishReport


def test_of_very_many_files_that_failed_all_are_counted_and_some_are_named():
    report = FinishReport(
        delivered=False,
        frames_left=0,
        points_left=0,
        points_lost=0,
        artifacts_left=(),
        artifacts_failed=(*(f"{number}.bin: gone" for number in range(1000)), "and 5,000 more"),
        artifacts_failed_count=6000,
        spool_dir=Path("spool"),
    )
    said = report.what_is_left()
    assert "6,000 artifacts were not stored: 0.bin: gone; 1.bin: gone; " in said
    assert said.endswith("; ...")
