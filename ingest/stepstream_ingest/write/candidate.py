"""One frame of a request, validated: what the commit needs of it, and no more. Pure."""

from dataclasses import dataclass

from stepstream_ingest.write.copy_rows import encode_row
from stepstream_ingest.write.summary import summarise
from stepstream_schema import frame as wire
from stepstream_schema.errors import FrameError
from stepstream_schema.records import Dataset, Matrix, Params, Ragged, Start, Status, Tags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A frame that may be stored, or one that may not and whose number is consumed all the same."""

    run_id: str
    writer: int
    seq: int
    rank: int | None
    attempt: int
    """Packed."""
    size: int
    points: int
    row: bytes | None
    """The frame's row for COPY; None for a refused frame, and for one without records."""
    start: Start | None = None
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str | None, int], ...] = ()
    statuses: tuple[Status, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    needs_run: bool = False
    """Stored for a run that is there and active, and else not at all; frames of clients may come before their run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a frame will never be stored."""

    index: int
    code: str
    message: str


def validate(index: int, data: bytes, received_at_us: int) -> tuple[Candidate | None, Refusal | None]:
    """What to commit of the frame, and why not all of it: the decoded columns do not outlive this call."""
    try:
        frame = wire.decode(data)
    except FrameError as error:
        return _consumed(data), Refusal(index=index, code=error.code, message=error.message)
    return accepted(frame, data, received_at_us), None


def accepted(frame: wire.Frame, data: bytes, received_at_us: int, *, needs_run: bool = False) -> Candidate:
    """What to commit of a frame that is known to be good, with its encoding."""
    summary = summarise(record for record in frame.records if isinstance(record, Matrix | Ragged))
    starts = [record for record in frame.records if isinstance(record, Start)]
    return Candidate(
        run_id=frame.run_id,
        writer=frame.writer,
        seq=frame.seq,
        rank=frame.rank,
        attempt=frame.attempt.packed,
        size=len(data),
        points=frame.points,
        row=encode_row(frame, summary, data, received_at_us) if frame.records else None,
        start=starts[0] if starts else None,
        params=tuple(item for record in frame.records if isinstance(record, Params) for item in record.items),
        tags=tuple(item for record in frame.records if isinstance(record, Tags) for item in record.items),
        statuses=tuple(record for record in frame.records if isinstance(record, Status)),
        datasets=tuple(record for record in frame.records if isinstance(record, Dataset)),
        needs_run=needs_run,
    )


def _consumed(data: bytes) -> Candidate | None:
    """The number of a refused frame, when its envelope can be read: the writer's mark must not wait for it."""
    try:
        head = wire.decode_head(data)
    except FrameError:
        return None
    return Candidate(
        run_id=head.run_id,
        writer=head.writer,
        seq=head.seq,
        rank=head.rank,
        attempt=head.attempt.packed,
        size=len(data),
        points=0,
        row=None,
    )
