"""The transaction of one pass: frames out, chunks in, summaries moved; all of it or nothing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from stepstream_ingest.compact.backlog import Backlog, Group
from stepstream_ingest.compact.chunk_rows import COLUMNS, Written, encode_block
from stepstream_ingest.compact.gather import Block, Gathering, regrouped
from stepstream_ingest.compact.series import Series
from stepstream_ingest.database import Connection, Database, stream_copy
from stepstream_schema import chunk, sql
from stepstream_schema import frame as wire
from stepstream_schema import points as ordered
from stepstream_schema.points import Points
from stepstream_schema.records import Unknown

PASS_POINTS: Final = 1_600_000
"""One pass at most, but for its last frame: some 80 MB while it is encoded."""
PASS_FRAMES: Final = 4096
LOOKED_UP_SERIES: Final = 128
"""Of several blocks whose older chunks are looked for at once."""
STORED_POINTS: Final = 2**18
"""Of several blocks that go into one COPY: 2 MB while they are encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass did."""

    frames: int
    points: int
    bytes: int
    chunks: int


class Compactor:
    """Law: after any pass, and wherever one is cut short, each point is in exactly one frame or chunk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("compact")
        self._series = Series(self._sql)

    async def backlog(self) -> Backlog:
        """What waits now. Raises DatabaseAway."""
        rows = await self._database.fetch(self._sql["backlog"])
        return Backlog.of(Group(**row) for row in rows)

    async def compact(self, group: Group) -> Pass | None:
        """One pass over the group; None when another process is at it. Raises DatabaseAway."""
        try:
            async with self._database.connection() as connection, connection.transaction():
                done = await self._compact(connection, group)
        except BaseException:
            self._series.forget(group)
            raise
        self._series.committed(group)
        return done

    async def _compact(self, connection: Connection, group: Group) -> Pass | None:
        run_id, rank, attempt = group.run_id, group.rank, group.attempt
        if not await connection.fetchval(self._sql["try_lock_group"], run_id, -1 if rank is None else rank, attempt):
            return None
        rows = await connection.fetch(
            self._sql["take_frames"], run_id, group.writers, rank, attempt, PASS_POINTS, PASS_FRAMES
        )
        # In the order of their writers, so that what was logged in order is found in order.
        rows = sorted(rows, key=lambda row: (row["writer"], row["seq"]))
        blocks, unknown = await asyncio.to_thread(_gathered, [row["body"] for row in rows], once=group.served)
        kept = [rows[place] for place in unknown]
        if kept:
            columns = [[row[name] for row in kept] for name in ("writer", "seq", "body")]
            await connection.execute(self._sql["keep_frames"], run_id, *columns)
        size = sum(len(row["body"]) for row in rows)
        frames = len(rows)
        del rows, kept
        if group.served:
            blocks = await self._news(connection, group, blocks)
        chunks = points = 0
        while blocks:
            some = _some(blocks)
            points += sum(block.values.size for block in some)
            chunks += await self._store(connection, group, some)
        if chunks:
            await self._series.tell(connection, group)
        return Pass(frames=frames, points=points, bytes=size, chunks=chunks)

    async def _news(self, connection: Connection, group: Group, blocks: Sequence[Block]) -> list[Block]:
        """The points of the blocks that no chunk has yet."""
        news: list[tuple[str, Points]] = []
        fresh: list[Block] = []
        left = list(reversed(blocks))
        while left:
            some = [left.pop()]
            while left and sum(len(block.keys) for block in [*some, left[-1]]) <= LOOKED_UP_SERIES:
                some.append(left.pop())
            there = await self._overlapping(connection, group, some)
            for block in some:
                if there.keys().isdisjoint(block.keys):
                    fresh.append(block)
                    continue
                for key, values in zip(block.keys, block.values, strict=True):
                    mine = Points(steps=block.steps, times_ms=block.times_ms, values=values)
                    # Opened one series at a time: closed, they are a tenth as large.
                    known = ordered.canonical(ordered.joined(map(chunk.decode, there.get(key, []))))
                    news.append((key, ordered.without(mine, known)))
        return fresh + regrouped((key, points) for key, points in news if len(points))

    async def _overlapping(
        self, connection: Connection, group: Group, blocks: Sequence[Block]
    ) -> dict[str, list[bytes]]:
        """Chunks that lie where the blocks do, by key."""
        keys = [key for block in blocks for key in block.keys]
        bounds = [_bounds(block) for block in blocks for _ in block.keys]
        return await self._series.overlapping(connection, group, keys, bounds)

    async def _store(self, connection: Connection, group: Group, blocks: Sequence[Block]) -> int:
        numbers = [await self._series.numbers(connection, group, block.keys) for block in blocks]
        written = await asyncio.to_thread(_encoded, group.run_id, numbers, blocks)
        rows = [row for one in written for row in one.rows]
        await connection.copy_to_table("chunks", source=stream_copy(rows), columns=COLUMNS, format="binary")
        await self._series.fold(connection, group, [block.keys for block in blocks], numbers, written)
        return len(rows)


def _gathered(bodies: Sequence[bytes], *, once: bool) -> tuple[list[Block], list[int]]:
    """The series in these frames, and which of the frames hold records that are not known here."""
    gathering = Gathering(once=once)
    unknown = []
    for place, body in enumerate(bodies):
        frame = wire.decode(body)
        gathering.add(frame)
        if any(isinstance(record, Unknown) for record in frame.records):
            unknown.append(place)
    return gathering.blocks(), unknown


def _some(blocks: list[Block]) -> list[Block]:
    """Blocks that are stored together, taken from the end: a series to a block would else cost a statement each."""
    some = [blocks.pop()]
    while blocks and sum(block.values.size for block in some) + blocks[-1].values.size <= STORED_POINTS:
        some.append(blocks.pop())
    return some


def _bounds(block: Block) -> tuple[int, int, int, int]:
    return int(block.steps[0]), int(block.times_ms[0]), int(block.steps[-1]), int(block.times_ms[-1])


def _encoded(run_id: UUID, numbers: Sequence[Sequence[int]], blocks: Sequence[Block]) -> list[Written]:
    return [encode_block(run_id, own, block) for own, block in zip(numbers, blocks, strict=True)]
