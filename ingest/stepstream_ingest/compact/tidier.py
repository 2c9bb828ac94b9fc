"""The transaction that merges small and overlapping chunks."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from stepstream_ingest.compact import tidy
from stepstream_ingest.compact.chunk_rows import COLUMNS, encode_block
from stepstream_ingest.compact.gather import Block, block_of
from stepstream_ingest.compact.tidy import Bounds, Merge
from stepstream_ingest.database import Connection, Database, stream_copy
from stepstream_schema import chunk, sql
from stepstream_schema.points import Points

LOOSE: Final = 8
"""A series with so many loose chunks is tidied; each point is rewritten about once for every eight passes."""
SERIES_AT_A_TIME: Final = 256
CHUNKS_AT_A_TIME: Final = 512
"""Opened in one transaction: some 100 MB at the very most, mostly far less since they are small."""


class Tidier:
    """Law: the points of every series are the same before and after."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("compact")

    async def groups(self) -> list[tuple[UUID, int, int]]:
        """Groups with something to tidy: (run, rank or -1, attempt). Raises DatabaseAway."""
        rows = await self._database.fetch(self._sql["untidy"], LOOSE)
        return [(row["run_id"], -1 if row["rank"] is None else row["rank"], row["attempt"]) for row in rows]

    async def tidy(self, run_id: UUID, rank: int, attempt: int) -> int:
        """Merge what is loose in some series of a group; how many chunks went. Raises DatabaseAway."""
        async with self._database.connection() as connection, connection.transaction():
            if not await connection.fetchval(self._sql["try_lock_group"], run_id, rank, attempt):
                return 0
            rows = await connection.fetch(self._sql["untidy_series"], run_id, rank, attempt, LOOSE, SERIES_AT_A_TIME)
            bounds = await self._bounds(connection, run_id, [row["series_id"] for row in rows])
            chosen, loose = _choose(bounds)
            loose |= await self._merge(connection, run_id, chosen)
            left = {series: loose.get(series, 0) for series in bounds}
            await connection.execute(self._sql["set_loose"], run_id, list(left), list(left.values()))
            await connection.execute(self._sql["forget_untidy"], run_id, rank, attempt)
            await connection.execute(self._sql["note_untidy"], run_id, rank, attempt)
            return sum(len(merge.chunks) for _, merge in chosen)

    async def _bounds(self, connection: Connection, run_id: UUID, series: Sequence[int]) -> dict[int, list[Bounds]]:
        found: dict[int, list[Bounds]] = {one: [] for one in series}
        for row in await connection.fetch(self._sql["chunk_bounds"], run_id, series, tidy.SMALL_POINTS):
            found[row["series_id"]].append(
                Bounds(
                    chunk_id=row["chunk_id"],
                    first=(row["first_step"], row["first_time_ms"]),
                    last=(row["last_step"], row["last_time_ms"]),
                    points=row["points"],
                )
            )
        return found

    async def _merge(self, connection: Connection, run_id: UUID, chosen: Sequence[tuple[int, Merge]]) -> dict[int, int]:
        if not chosen:
            return {}
        wanted = [(series, one.first[0], one.chunk_id) for series, merge in chosen for one in merge.chunks]
        columns = [list(column) for column in zip(*wanted, strict=True)]
        rows = await connection.fetch(self._sql["take_chunks"], run_id, *columns)
        bodies = {row["chunk_id"]: row["body"] for row in rows}
        new, loose = await asyncio.to_thread(_rewritten, run_id, chosen, bodies)
        await connection.copy_to_table("chunks", source=stream_copy(new), columns=COLUMNS, format="binary")
        return loose


def _choose(bounds: dict[int, list[Bounds]]) -> tuple[list[tuple[int, Merge]], dict[int, int]]:
    """As many merges as one transaction may open, and which series wait for the next one."""
    chosen: list[tuple[int, Merge]] = []
    loose: dict[int, int] = {}
    opened = 0
    for series, own in bounds.items():
        for merge in tidy.plan(own):
            if opened and opened + len(merge.chunks) > CHUNKS_AT_A_TIME:
                loose[series] = LOOSE
                continue
            chosen.append((series, merge))
            opened += len(merge.chunks)
    return chosen, loose


def _rewritten(
    run_id: UUID, chosen: Sequence[tuple[int, Merge]], bodies: dict[int, bytes]
) -> tuple[list[bytes], dict[int, int]]:
    """Rows of the chunks that take the place of others, and the series that are not finished by that."""
    pieces: list[tuple[int, Points]] = []
    loose: dict[int, int] = {}
    for series, merge in chosen:
        done, rest = tidy.merged([chunk.decode(bodies[one.chunk_id]) for one in merge.chunks], merge.before)
        pieces += [(series, piece) for piece in done + rest]
        if done and rest:
            loose[series] = LOOSE
    rows: list[bytes] = []
    for block in _blocks(pieces):
        rows += encode_block(run_id, [int(key) for key in block.keys], block).rows
    return rows, loose


def _blocks(pieces: Sequence[tuple[int, Points]]) -> list[Block]:
    groups: dict[tuple[bytes, bytes], list[tuple[str, Points]]] = {}
    for series, points in pieces:
        groups.setdefault((points.steps.tobytes(), points.times_ms.tobytes()), []).append((str(series), points))
    return [block_of(members) for members in groups.values()]
