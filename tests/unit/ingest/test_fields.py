"""What may be a run's id."""

from uuid import UUID

import pytest

from stepstream_ingest.mlflow.fields import possible_run

RUN = "0123456789abcdef" * 2


@pytest.mark.parametrize("text", [RUN, RUN.upper()])
def test_hex_digits_of_either_case_are_a_run(text):
    assert possible_run(text) == UUID(RUN)


@pytest.mark.parametrize(
    "text", ["", RUN[:-1], RUN + "0", RUN[:-1] + "\n", "\u0661" * 32, "-" * 32, "0x" + RUN[2:], str(UUID(RUN))]
)
def test_all_else_is_none(text):
    assert possible_run(text) is None
