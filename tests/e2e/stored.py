"""What PostgreSQL holds of a run: read by SQL and decoded frame by frame, past the server."""

from collections import Counter
from typing import Any, NamedTuple

import asyncpg
import numpy as np

from stepstream_schema import frame as wire
from stepstream_schema.records import Matrix, Ragged


class Point(NamedTuple):
    key: str
    rank: int | None
    elastic: int
    step: int
    value: float


async def fetch(database_url: str, sql: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


async def count(database_url: str, run_id: str) -> int:
    rows = await fetch(
        database_url, "SELECT coalesce(sum(points), 0)::bigint AS n FROM frames WHERE run_id = $1::text::uuid", run_id
    )
    return int(rows[0]["n"])


async def points(database_url: str, run_id: str) -> Counter[Point]:
    """Every stored point and how often it is stored."""
    rows = await fetch(database_url, "SELECT body FROM frames WHERE run_id = $1::text::uuid", run_id)
    found: Counter[Point] = Counter()
    for row in rows:
        frame = wire.decode(row["body"])
        for record in frame.records:
            if isinstance(record, Matrix):
                for key, values in zip(record.keys, record.values, strict=True):
                    found.update(_points(frame, [key] * len(values), record.steps, values))
            elif isinstance(record, Ragged):
                keys = np.repeat(np.array(record.keys, object), record.counts)
                found.update(_points(frame, keys, record.steps, record.values))
    return found


def _points(frame: wire.Frame, keys: Any, steps: Any, values: Any) -> list[Point]:
    return [
        Point(str(key), frame.rank, frame.attempt.elastic, int(step), float(value))
        for key, step, value in zip(keys, steps, values, strict=True)
    ]
