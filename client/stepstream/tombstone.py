"""Frames without records: they consume the numbers of frames that are lost."""

from collections.abc import Iterator

from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt


def tombstones(run_id: str, writer: int, attempt: Attempt, first: int, last: int) -> Iterator[bytes]:
    """One empty frame for each number from `first` to `last`, both included."""
    for seq in range(first, last + 1):
        yield wire.encode(wire.Frame(run_id=run_id, writer=writer, seq=seq, rank=None, attempt=attempt, records=()))
