"""What was logged, read back as a table."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgpack
import numpy as np

from stepstream.errors import ConfigurationError, QueryError
from stepstream.listed import listed
from stepstream.query import Server
from stepstream_schema import paths

if TYPE_CHECKING:
    import pandas

FLOATS: Final = frozenset({"values", "first", "last", "min", "max", "sum", "mean"})
TOO_LARGE: Final = 413


def frame(
    server: Server,
    run_id: str,
    keys: Sequence[str] | str | None,
    *,
    rank: int | None,
    attempt: str | None,
    start_step: int | None,
    end_step: int | None,
    buckets: int | None,
) -> "pandas.DataFrame":
    """See `Run.history`."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ConfigurationError("history() makes a pandas table: pip install 'stepstream[dataframe]'") from error
    tables = []
    for key in listed(keys) if keys is not None else _keys(server, run_id):
        asked = {"key": key, "rank": rank, "attempt": attempt, "buckets": buckets}
        for columns in parts(server, run_id, asked, start_step, end_step):
            table = pandas.DataFrame(columns)
            table.insert(0, "key", key)
            tables.append(table)
    whole = pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame(columns=["key"])
    names = {"steps": "step", "times_ms": "time", "values": "value"}
    whole = whole.rename(columns=names)
    if "time" in whole:
        # One time that pandas cannot say, such as microseconds that were taken for milliseconds, costs no other row.
        whole["time"] = pandas.to_datetime(whole["time"], unit="ms", utc=True, errors="coerce")
    return whole


def _keys(server: Server, run_id: str) -> list[str]:
    series = json.loads(server.get(paths.run_metrics(run_id)))["series"]
    return sorted({one["key"] for one in series})


def parts(
    server: Server, run_id: str, asked: dict[str, Any], start: int | None, end: int | None
) -> Iterator[dict[str, Any]]:
    """The answer for these steps, in halves where it is too large for one."""
    try:
        yield _columns(server, run_id, asked | {"start_step": start, "end_step": end})
    except QueryError as error:
        if error.status != TOO_LARGE or (start is not None and start == end):
            raise
        whole = _columns(server, run_id, asked | {"start_step": start, "end_step": end, "buckets": 1})
        low, high = int(whole["first_step"][0]), int(whole["last_step"][0])
        if low == high:
            raise
        middle = low + (high - low) // 2
        yield from parts(server, run_id, asked, low, middle)
        yield from parts(server, run_id, asked, middle + 1, high)


def _columns(server: Server, run_id: str, asked: dict[str, Any]) -> dict[str, Any]:
    answer = msgpack.unpackb(server.get(paths.run_history(run_id), paths.MSGPACK, **asked))
    return {
        name: np.frombuffer(column, "<f8" if name in FLOATS else "<i8")
        for name, column in answer.items()
        if isinstance(column, bytes)
    }
