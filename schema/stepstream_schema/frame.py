"""One frame: a numbered, sealed message of one writer, as bytes and as a value.

`encode` and `decode` are pure. Law: `decode(encode(frame))` gives the same envelope and records, every float64 bit
pattern included; `decode` of any other bytes raises FrameError and allocates at most the stated limits.
The byte layout is described in docs/wire-format.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import numpy as np

from stepstream_schema import limits, metrics, objects, records
from stepstream_schema.attempt import Attempt
from stepstream_schema.errors import FrameError
from stepstream_schema.metrics import Budget
from stepstream_schema.records import (
    DATASET_TEXTS,
    Dataset,
    Heartbeat,
    Matrix,
    Params,
    Ragged,
    Record,
    Start,
    Status,
    Tags,
    Unknown,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame, decoded."""

    run_id: str
    """32 lower-case hex digits."""
    writer: int
    """Random 63-bit number of the writer; a process, or a forked child of one, is one writer for each run."""
    seq: int
    """1, 2, 3, ... without gaps for each (run, writer)."""
    rank: int | None
    """Rank of the process in its job, or None."""
    attempt: Attempt
    records: tuple[Record, ...]

    @property
    def points(self) -> int:
        """How many metric points it holds."""
        return sum(record.points for record in self.records if isinstance(record, Matrix | Ragged))


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises FrameError rather than produce what no decoder takes."""
    attempt = frame.attempt
    budget = Budget()
    envelope = [
        limits.FRAME_VERSION,
        _run_bytes(frame.run_id),
        frame.writer,
        frame.seq,
        frame.rank,
        [attempt.scheduler, attempt.elastic, attempt.resume],
        [_encode_record(record, budget) for record in frame.records],
    ]
    _decode_head(envelope)
    _check_array(envelope[6])
    try:
        data: bytes = msgpack.packb(envelope)
    except (ValueError, TypeError, OverflowError) as error:
        raise FrameError("invalid", f"a value has no msgpack form: {error}") from error
    _check_message(data)
    return data


def decode(data: bytes | memoryview) -> Frame:
    """The frame behind `data`. Raises FrameError, and nothing else, for whatever is not one."""
    envelope = _unpack(data)
    head = _decode_head(envelope)
    raw_records = envelope[6]
    if not isinstance(raw_records, list):
        raise FrameError("malformed", "records are not an array")
    budget = Budget()
    return Frame(
        run_id=head.run_id,
        writer=head.writer,
        seq=head.seq,
        rank=head.rank,
        attempt=head.attempt,
        records=tuple(_decode_record(raw, budget) for raw in raw_records),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Whose frame it is: readable even where the records are not."""

    run_id: str
    writer: int
    seq: int
    rank: int | None
    attempt: Attempt


def decode_head(data: bytes | memoryview) -> Head:
    """The envelope alone, so that a refused frame's number can be consumed. Raises FrameError."""
    return _decode_head(_unpack(data))


def _check_message(data: bytes | memoryview) -> None:
    if len(data) > limits.MAX_FRAME_BYTES:
        raise FrameError("too_large", f"a frame of {len(data)} bytes exceeds {limits.MAX_FRAME_BYTES}")
    objects.check(data, limits.MAX_OBJECTS_PER_FRAME)


def _unpack(data: bytes | memoryview) -> list[Any]:
    _check_message(data)
    try:
        envelope = msgpack.unpackb(
            data,
            max_array_len=limits.MAX_RECORDS_PER_FRAME,
            max_map_len=64,
            max_ext_len=0,
            max_bin_len=limits.MAX_FRAME_BYTES,
            max_str_len=limits.MAX_FRAME_BYTES,
        )
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise FrameError("malformed", f"not msgpack: {error}") from error
    if not isinstance(envelope, list) or not envelope:
        raise FrameError("malformed", "the envelope is not an array")
    version = envelope[0]
    if type(version) is not int:
        raise FrameError("malformed", "the envelope does not start with a format version")
    if version != limits.FRAME_VERSION:
        raise FrameError("version", f"frame version {version} is not known; this side speaks {limits.FRAME_VERSION}")
    if len(envelope) != 7:
        raise FrameError("malformed", f"the envelope has {len(envelope)} fields, not 7")
    return envelope


def _decode_head(envelope: list[Any]) -> Head:
    _check_no_booleans(envelope[1:6])
    match envelope[1:6]:
        case [bytes(run), int(writer), int(seq), int() | None as rank, [int(a), int(b), int(c)]]:
            pass
        case _:
            raise FrameError("malformed", "an envelope field has the wrong type")
    if len(run) != 16 or not 0 < writer < 2**63 or not 0 < seq < 2**62:
        raise FrameError("malformed", "run id, writer or sequence number is out of range")
    if rank is not None and not 0 <= rank < 2**31:
        raise FrameError("malformed", f"rank {rank} is out of range")
    try:
        attempt = Attempt(a, b, c)
    except ValueError as error:
        raise FrameError("malformed", str(error)) from error
    return Head(run_id=run.hex(), writer=writer, seq=seq, rank=rank, attempt=attempt)


def _run_bytes(run_id: str) -> bytes:
    try:
        return bytes.fromhex(run_id)
    except ValueError as error:
        raise FrameError("invalid", f"a run id has 32 hex digits, unlike {run_id[:40]!r}") from error


def _encode_record(record: Record, budget: Budget) -> list[Any]:
    match record:
        case Matrix():
            return metrics.encode_matrix(record, budget)
        case Ragged():
            return metrics.encode_ragged(record, budget)
        case Start():
            raw = [records.START, record.experiment, record.name, record.time_ms, record.user, record.heartbeat_s]
        case Params():
            raw = [records.PARAMS, [part for item in record.items for part in item]]
        case Tags():
            raw = [records.TAGS, [part for item in record.items for part in item]]
        case Status():
            raw = [records.STATUS, record.status, record.time_ms]
        case Heartbeat():
            raw = [records.HEARTBEAT, record.time_ms]
        case Dataset():
            said = [getattr(record, name) for name in DATASET_TEXTS]
            raw = [records.DATASET, *said, [part for item in record.tags for part in item]]
        case Unknown():
            raise FrameError("unknown_record", f"a record of unknown kind {record.kind} can be kept, not written")
    # The decoder is the judge of what may be written, so that both sides hold one set of rules.
    _decode_record(raw, budget)
    return raw


def _decode_record(raw: Any, budget: Budget) -> Record:
    if not isinstance(raw, list) or not raw or not isinstance(raw[0], int) or isinstance(raw[0], bool):
        raise FrameError("malformed", "a record is not an array that starts with its kind")
    kind, fields = raw[0], raw[1:]
    if kind >= records.OPTIONAL_KINDS:
        return Unknown(kind=kind)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise FrameError("unknown_record", f"record kind {kind} is not known; a newer server may know it")
    _check_no_booleans(fields)
    return decoder(fields, budget)


def _decode_start(fields: list[Any], _: Budget) -> Start:
    match fields:
        case [str(experiment), str(name), int(time_ms), str(user), int(heartbeat_s)]:
            pass
        case _:
            raise FrameError("malformed", "a start record has the wrong fields")
    for text in (experiment, name, user):
        _check_text(text, limits.MAX_NAME_CHARS, "a name")
    if not experiment:
        raise FrameError("invalid", "the experiment's name is empty")
    if not 0 <= heartbeat_s <= limits.MAX_HEARTBEAT_S:
        raise FrameError("invalid", f"a heartbeat is due every 0 to {limits.MAX_HEARTBEAT_S} seconds")
    return Start(experiment=experiment, name=name, time_ms=_time(time_ms), user=user, heartbeat_s=heartbeat_s)


def _decode_params(fields: list[Any], _: Budget) -> Params:
    flat = _flat(fields, 2)
    items = tuple(zip(flat[::2], flat[1::2], strict=True))
    for key, value in items:
        _check_key(key)
        _check_text(value, limits.MAX_PARAM_VALUE_CHARS, "the value of a param")
    return Params(items=items)


def _decode_tags(fields: list[Any], _: Budget) -> Tags:
    flat = _flat(fields, 3)
    items = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    for key, value, time_ms in items:
        _check_key(key)
        if value is not None:
            _check_text(value, limits.MAX_TAG_VALUE_CHARS, "the value of a tag")
        _time(time_ms)
    return Tags(items=items)


def _decode_status(fields: list[Any], _: Budget) -> Status:
    match fields:
        case [str(status), int(time_ms)]:
            if status not in records.RUN_STATUSES:
                raise FrameError("invalid", f"{status[:40]!r} is not a run status")
            return Status(status=status, time_ms=_time(time_ms))  # type: ignore[arg-type]
    raise FrameError("malformed", "a status record has the wrong fields")


def _decode_heartbeat(fields: list[Any], _: Budget) -> Heartbeat:
    match fields:
        case [int(time_ms)]:
            return Heartbeat(time_ms=_time(time_ms))
    raise FrameError("malformed", "a heartbeat record has the wrong fields")


def _decode_dataset(fields: list[Any], _: Budget) -> Dataset:
    if len(fields) != len(DATASET_TEXTS) + 1 or not isinstance(fields[-1], list) or len(fields[-1]) % 2:
        raise FrameError("malformed", "a dataset record has the wrong fields")
    for (name, most), text in zip(DATASET_TEXTS.items(), fields, strict=False):
        _check_text(text, most, f"a dataset's {name}")
    if not fields[0]:
        raise FrameError("invalid", "a dataset's name is empty")
    flat = fields[-1]
    _check_array(flat)
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        _check_text(key, limits.MAX_DATASET_TAG_KEY_CHARS, "a key of a dataset's tag")
        _check_text(value, limits.MAX_DATASET_TAG_VALUE_CHARS, "the value of a dataset's tag")
    said = dict(zip(DATASET_TEXTS, fields, strict=False))
    return Dataset(**said, tags=tuple(zip(flat[::2], flat[1::2], strict=True)))


_DECODERS: Final[dict[int, Callable[[list[Any], Budget], Record]]] = {
    records.START: _decode_start,
    records.MATRIX: metrics.decode_matrix,
    records.RAGGED: metrics.decode_ragged,
    records.PARAMS: _decode_params,
    records.TAGS: _decode_tags,
    records.STATUS: _decode_status,
    records.HEARTBEAT: _decode_heartbeat,
    records.DATASET: _decode_dataset,
}


def _flat(fields: list[Any], width: int) -> list[Any]:
    if len(fields) != 1 or not isinstance(fields[0], list) or not fields[0] or len(fields[0]) % width:
        raise FrameError("malformed", f"a list of items needs {width} fields an item")
    _check_array(fields[0])
    return fields[0]


def _check_array(items: object) -> None:
    if isinstance(items, list) and len(items) > limits.MAX_RECORDS_PER_FRAME:
        raise FrameError("too_large", f"an array of {len(items)} exceeds {limits.MAX_RECORDS_PER_FRAME}")


def _check_no_booleans(fields: list[Any]) -> None:
    # True is an int to a match pattern, and would come out as rank 1 or step 1.
    if bool in map(type, fields) or any(bool in map(type, field) for field in fields if isinstance(field, list)):
        raise FrameError("malformed", "a boolean stands where a number belongs")


def _check_key(key: object) -> None:
    _check_text(key, limits.MAX_KEY_CHARS, "a key")
    if not key:
        raise FrameError("invalid", "a key is empty")


def _check_text(text: object, most: int, what: str) -> None:
    if not isinstance(text, str):
        raise FrameError("malformed", f"{what} is not text")
    if len(text) > most:
        raise FrameError("invalid", f"{what} is longer than {most} characters")
    if metrics.KEY_SEPARATOR in text:
        raise FrameError("invalid", f"{what} holds a NUL character, which PostgreSQL cannot store")


def _time(time_ms: object) -> int:
    if not isinstance(time_ms, int) or not -(2**63) <= time_ms < 2**63:
        raise FrameError("malformed", "a time is not an int64")
    return time_ms


def matrix_from_rows(keys: tuple[str, ...], steps: list[int], times_ms: list[int], flat_values: Any) -> Matrix:
    """A Matrix from rows as they were logged: `flat_values` has shape (steps * keys,), step by step."""
    values = np.asarray(flat_values, np.float64).reshape(len(steps), len(keys)).T
    return Matrix(
        keys=keys,
        steps=np.asarray(steps, np.int64),
        times_ms=np.asarray(times_ms, np.int64),
        values=np.ascontiguousarray(values),
    )
