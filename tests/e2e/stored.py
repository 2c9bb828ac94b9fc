"""What PostgreSQL holds of a run: read by SQL and decoded frame by frame, past the server."""

from collections import Counter
from typing import Any, NamedTuple

import asyncpg
import numpy as np

from stepstream_schema import chunk
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
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
    """Points of a run, in frames and in chunks."""
    rows = await fetch(
        database_url,
        """SELECT (SELECT coalesce(sum(points), 0) FROM frames WHERE run_id = $1::text::uuid)::bigint
            + (SELECT coalesce(sum(points), 0) FROM chunks WHERE run_id = $1::text::uuid)::bigint AS n""",
        run_id,
    )
    return int(rows[0]["n"])


async def points(database_url: str, run_id: str) -> Counter[Point]:
    """Every stored point and how often it is stored, in one snapshot of frames and chunks."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            frames = await connection.fetch("SELECT body FROM frames WHERE run_id = $1::text::uuid", run_id)
            chunks = await connection.fetch(
                """SELECT s.key, s.rank, s.attempt, c.body FROM chunks AS c JOIN series AS s USING (run_id, series_id)
                WHERE c.run_id = $1::text::uuid""",
                run_id,
            )
    finally:
        await connection.close()
    found: Counter[Point] = Counter()
    for row in frames:
        frame = wire.decode(row["body"])
        for record in frame.records:
            if isinstance(record, Matrix):
                for key, values in zip(record.keys, record.values, strict=True):
                    found.update(_points(frame.rank, frame.attempt, [key] * len(values), record.steps, values))
            elif isinstance(record, Ragged):
                keys = np.repeat(np.array(record.keys, object), record.counts)
                found.update(_points(frame.rank, frame.attempt, keys, record.steps, record.values))
    for row in chunks:
        held = chunk.decode(row["body"])
        rank = None if row["rank"] == -1 else row["rank"]
        keys = [row["key"]] * len(held)
        found.update(_points(rank, Attempt.unpack(row["attempt"]), keys, held.steps, held.values))
    return found


def _points(rank: int | None, attempt: Attempt, keys: Any, steps: Any, values: Any) -> list[Point]:
    return [
        Point(str(key), rank, attempt.elastic, int(step), float(value))
        for key, step, value in zip(keys, steps, values, strict=True)
    ]
