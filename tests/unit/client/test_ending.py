"""How a run ends is what the script meant, or a failure: never a success that nobody has claimed."""

import logging
from typing import Any, get_args

import numpy as np
import pytest

from stepstream.ending import STATUSES, status
from stepstream.entities import RunStatus
from stepstream.notices import Notices
from stepstream_schema import records


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("nothing to say")

    __str__ = __index__ = __repr__


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("failed", "FAILED"),
        ("Killed ", "KILLED"),
        ("FINISHED", "FINISHED"),
        (RunStatus.KILLED, "KILLED"),
        (np.int64(3), "FINISHED"),
        (None, "FINISHED"),
    ],
)
def test_a_status_is_read_as_it_is_meant(said: Any, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    assert status(said, Notices()) == meant
    assert not caplog.records


@pytest.mark.parametrize("said", ["FAIL", "success", "", 0, 1, 2, 6, -1, True, False, 2.5, [], Mute()])
def test_what_is_no_status_is_said_once_and_a_failure(said: Any, caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices()
    with caplog.at_level(logging.WARNING):
        assert [status(said, notices), status(said, notices)] == ["FAILED", "FAILED"]
    assert len(caplog.records) == 1
    assert "FINISHED, FAILED, KILLED" in caplog.text


def test_the_statuses_are_those_of_frames_and_of_mlflows_numbers() -> None:
    assert get_args(records.RunStatus) == STATUSES
    assert [RunStatus.to_string(number) for number in range(1, 6)] == list(STATUSES)
