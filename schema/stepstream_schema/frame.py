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

from stepstream_schema import columns, limits, records
from stepstream_schema.attempt import Attempt
from stepstream_schema.errors import FrameError
from stepstream_schema.records import (
    Heartbeat,
    Matrix,
    Metrics,
    Params,
    Ragged,
    Record,
    Start,
    Status,
    Tags,
    Unknown,
)

KEY_SEPARATOR: Final = "\0"
"""Keys travel as one string: no array of 20,000 objects to unpack, and none for a hostile header to reserve."""


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
    """The frame's bytes. Raises FrameError `too_large` or `invalid` rather than produce what no decoder takes."""
    attempt = frame.attempt
    data: bytes = msgpack.packb(
        [
            limits.FRAME_VERSION,
            bytes.fromhex(frame.run_id),
            frame.writer,
            frame.seq,
            frame.rank,
            [attempt.scheduler, attempt.elastic, attempt.resume],
            [_encode_record(record) for record in frame.records],
        ]
    )
    if len(data) > limits.MAX_FRAME_BYTES:
        raise FrameError("too_large", f"a frame of {len(data)} bytes exceeds {limits.MAX_FRAME_BYTES}")
    return data


def decode(data: bytes | memoryview) -> Frame:
    """The frame behind `data`. Raises FrameError, and nothing else, for whatever is not one."""
    envelope = _unpack(data)
    head = _decode_head(envelope)
    raw_records = envelope[6]
    if not isinstance(raw_records, list):
        raise FrameError("malformed", "records are not an array")
    budget = _Budget()
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


def _unpack(data: bytes | memoryview) -> list[Any]:
    if len(data) > limits.MAX_FRAME_BYTES:
        raise FrameError("too_large", f"a frame of {len(data)} bytes exceeds {limits.MAX_FRAME_BYTES}")
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
    if envelope[0] != limits.FRAME_VERSION or isinstance(envelope[0], bool):
        raise FrameError("version", f"frame version {str(envelope[0])[:20]} is not known; this side speaks 1")
    if len(envelope) != 7:
        raise FrameError("malformed", f"the envelope has {len(envelope)} fields, not 7")
    return envelope


def _decode_head(envelope: list[Any]) -> Head:
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


def _encode_record(record: Record) -> list[Any]:
    match record:
        case Matrix():
            return _encode_matrix(record)
        case Ragged():
            return _encode_ragged(record)
        case Start():
            fields = [record.experiment, record.name, record.time_ms, record.user, record.heartbeat_s]
            return [records.START, *fields]
        case Params():
            return [records.PARAMS, [part for item in record.items for part in item]]
        case Tags():
            return [records.TAGS, [part for item in record.items for part in item]]
        case Status():
            return [records.STATUS, record.status, record.time_ms]
        case Heartbeat():
            return [records.HEARTBEAT, record.time_ms]
        case Unknown():
            raise FrameError("unknown_record", f"a record of unknown kind {record.kind} can be kept, not written")


def _encode_matrix(record: Matrix) -> list[Any]:
    if record.values.shape != (len(record.keys), len(record.steps)) or len(record.steps) != len(record.times_ms):
        raise FrameError("invalid", "values need the shape (keys, steps)")
    _check_size(len(record.keys), record.points)
    steps, step_bytes = columns.encode_ints(record.steps)
    times, time_bytes = columns.encode_ints(record.times_ms)
    body = columns.deflate([step_bytes, time_bytes, columns.shuffle(record.values)])
    return [records.MATRIX, KEY_SEPARATOR.join(record.keys), len(record.steps), steps, times, body]


def _encode_ragged(record: Ragged) -> list[Any]:
    if len(record.counts) != len(record.keys) or not (
        int(record.counts.sum()) == len(record.steps) == len(record.times_ms) == len(record.values)
    ):
        raise FrameError("invalid", "counts must add up to the steps, times and values")
    _check_size(len(record.keys), record.points)
    counts, count_bytes = columns.encode_ints(record.counts)
    steps, step_bytes = columns.encode_ints(record.steps)
    times, time_bytes = columns.encode_ints(record.times_ms)
    body = columns.deflate([count_bytes, step_bytes, time_bytes, columns.shuffle(record.values)])
    return [records.RAGGED, KEY_SEPARATOR.join(record.keys), len(record.steps), counts, steps, times, body]


def _check_size(keys: int, points: int) -> None:
    if not keys or not points:
        raise FrameError("invalid", "a record of metrics holds at least one key and one point")
    if keys > limits.MAX_KEYS_PER_FRAME or points > limits.MAX_POINTS_PER_FRAME:
        bound = f"{limits.MAX_KEYS_PER_FRAME} keys and {limits.MAX_POINTS_PER_FRAME} points"
        raise FrameError("too_large", f"{keys} keys and {points} points exceed {bound}")


class _Budget:
    """What a frame's records may still claim, all of them together."""

    def __init__(self) -> None:
        self._bytes = limits.MAX_INFLATED_BYTES
        self._keys = limits.MAX_KEYS_PER_FRAME
        self._points = limits.MAX_POINTS_PER_FRAME

    def take(self, *, keys: int, points: int, inflated_bytes: int) -> None:
        self._keys -= keys
        self._points -= points
        self._bytes -= inflated_bytes
        if self._bytes < 0 or self._keys < 0 or self._points < 0:
            raise FrameError(
                "too_large",
                f"a frame holds at most {limits.MAX_KEYS_PER_FRAME} keys, {limits.MAX_POINTS_PER_FRAME} points "
                f"and {limits.MAX_INFLATED_BYTES} bytes of columns",
            )


def _decode_record(raw: Any, budget: _Budget) -> Record:
    if not isinstance(raw, list) or not raw or not isinstance(raw[0], int) or isinstance(raw[0], bool):
        raise FrameError("malformed", "a record is not an array that starts with its kind")
    kind, fields = raw[0], raw[1:]
    if kind >= records.OPTIONAL_KINDS:
        return Unknown(kind=kind)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise FrameError("unknown_record", f"record kind {kind} is not known; a newer server may know it")
    return decoder(fields, budget)


def _decode_matrix(fields: list[Any], budget: _Budget) -> Metrics:
    match fields:
        case [str(joined), int(count), list(step_head), list(time_head), bytes(body)] if count > 0:
            keys = _decode_keys(joined)
        case _:
            raise FrameError("malformed", "a matrix record has the wrong fields")
    step_size = _ints_size(step_head, count)
    time_size = _ints_size(time_head, count)
    points = len(keys) * count
    size = step_size + time_size + points * columns.WORD_BYTES
    budget.take(keys=len(keys), points=points, inflated_bytes=size)
    raw = columns.inflate(body, size)
    values = columns.unshuffle_floats(raw[step_size + time_size :].reshape(columns.WORD_BYTES, points))
    return Matrix(
        keys=keys,
        steps=columns.decode_ints(step_head, count, raw[:step_size]),
        times_ms=columns.decode_ints(time_head, count, raw[step_size : step_size + time_size]),
        values=values.reshape(len(keys), count),
    )


def _decode_ragged(fields: list[Any], budget: _Budget) -> Metrics:
    match fields:
        case [str(joined), int(total), list(count_head), list(step_head), list(time_head), bytes(body)] if total > 0:
            keys = _decode_keys(joined)
        case _:
            raise FrameError("malformed", "a ragged record has the wrong fields")
    heads = [(count_head, len(keys)), (step_head, total), (time_head, total)]
    sizes = [_ints_size(head, count) for head, count in heads]
    size = sum(sizes) + total * columns.WORD_BYTES
    budget.take(keys=len(keys), points=total, inflated_bytes=size)
    raw = columns.inflate(body, size)
    ints, start = [], 0
    for (head, count), length in zip(heads, sizes, strict=True):
        ints.append(columns.decode_ints(head, count, raw[start : start + length]))
        start += length
    counts, steps, times = ints
    if int(counts.min()) < 1 or int(counts.max()) > total or int(counts.sum()) != total:
        raise FrameError("malformed", "the counts of a ragged record do not add up to its points")
    values = columns.unshuffle_floats(raw[start:].reshape(columns.WORD_BYTES, total))
    return Ragged(keys=keys, counts=counts, steps=steps, times_ms=times, values=values)


def _ints_size(head: list[Any], count: int) -> int:
    # Said before anything is multiplied or reserved: a count of 2**63 must not reach NumPy.
    if count > limits.MAX_POINTS_PER_FRAME:
        raise FrameError("too_large", f"a column of {count} values exceeds {limits.MAX_POINTS_PER_FRAME}")
    return columns.ints_size(head, count)


def _decode_keys(joined: str) -> tuple[str, ...]:
    if joined.count(KEY_SEPARATOR) >= limits.MAX_KEYS_PER_FRAME:
        raise FrameError("too_large", f"more than {limits.MAX_KEYS_PER_FRAME} keys")
    keys = tuple(joined.split(KEY_SEPARATOR))
    if len(set(keys)) != len(keys):
        raise FrameError("invalid", "a key stands twice in one record")
    if not all(keys):
        raise FrameError("invalid", "a key is empty")
    if len(max(keys, key=len)) > limits.MAX_KEY_CHARS:
        raise FrameError("invalid", f"a key is longer than {limits.MAX_KEY_CHARS} characters")
    return keys


def _decode_start(fields: list[Any], _: _Budget) -> Start:
    match fields:
        case [str(experiment), str(name), int(time_ms), str(user), int(heartbeat_s)]:
            pass
        case _:
            raise FrameError("malformed", "a start record has the wrong fields")
    for text in (experiment, name, user):
        _check_text(text, limits.MAX_NAME_CHARS, "a name")
    if not experiment:
        raise FrameError("invalid", "the experiment's name is empty")
    return Start(
        experiment=experiment,
        name=name,
        time_ms=_time(time_ms),
        user=user,
        heartbeat_s=min(max(heartbeat_s, 0), 86_400),
    )


def _decode_params(fields: list[Any], _: _Budget) -> Params:
    flat = _flat(fields, 2)
    items = tuple(zip(flat[::2], flat[1::2], strict=True))
    for key, value in items:
        _check_key(key)
        _check_text(value, limits.MAX_PARAM_VALUE_CHARS, "the value of a param")
    return Params(items=items)


def _decode_tags(fields: list[Any], _: _Budget) -> Tags:
    flat = _flat(fields, 3)
    items = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    for key, value, time_ms in items:
        _check_key(key)
        if value is not None:
            _check_text(value, limits.MAX_TAG_VALUE_CHARS, "the value of a tag")
        _time(time_ms)
    return Tags(items=items)


def _decode_status(fields: list[Any], _: _Budget) -> Status:
    match fields:
        case [str(status), int(time_ms)]:
            if status not in records.RUN_STATUSES:
                raise FrameError("invalid", f"{status[:40]!r} is not a run status")
            return Status(status=status, time_ms=_time(time_ms))  # type: ignore[arg-type]
    raise FrameError("malformed", "a status record has the wrong fields")


def _decode_heartbeat(fields: list[Any], _: _Budget) -> Heartbeat:
    match fields:
        case [int(time_ms)]:
            return Heartbeat(time_ms=_time(time_ms))
    raise FrameError("malformed", "a heartbeat record has the wrong fields")


_DECODERS: Final[dict[int, Callable[[list[Any], _Budget], Record]]] = {
    records.START: _decode_start,
    records.MATRIX: _decode_matrix,
    records.RAGGED: _decode_ragged,
    records.PARAMS: _decode_params,
    records.TAGS: _decode_tags,
    records.STATUS: _decode_status,
    records.HEARTBEAT: _decode_heartbeat,
}


def _flat(fields: list[Any], width: int) -> list[Any]:
    if len(fields) != 1 or not isinstance(fields[0], list) or not fields[0] or len(fields[0]) % width:
        raise FrameError("malformed", f"a list of items needs {width} fields an item")
    return fields[0]


def _check_key(key: object) -> None:
    _check_text(key, limits.MAX_KEY_CHARS, "a key")
    if not key:
        raise FrameError("invalid", "a key is empty")


def _check_text(text: object, most: int, what: str) -> None:
    if not isinstance(text, str):
        raise FrameError("malformed", f"{what} is not text")
    if len(text) > most:
        raise FrameError("invalid", f"{what} is longer than {most} characters")
    if KEY_SEPARATOR in text:
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
