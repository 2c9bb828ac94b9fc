"""The series of runs: what numbers they have, their summaries, and the latest values of each run."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np

from stepstream_ingest.compact.backlog import Group
from stepstream_ingest.compact.chunk_rows import Written
from stepstream_ingest.database import Connection
from stepstream_ingest.errors import DatabaseAway
from stepstream_schema import chunk

OUT_OF_ORDER_LOOSE: Final = 4
"""A chunk that overlaps older ones makes every reader of it merge: it counts as so many small ones."""
SERVED: Final = "mlflow"
"""The context of series that came by MLflow's protocol."""
LATEST_KEYS: Final = 128
"""A run with more keys says its latest values by its series alone: a row of so many is read and written in no time."""
KNOWN_GROUPS: Final = 256
"""Groups whose series numbers are remembered; forgetting one costs a query."""

_Name: TypeAlias = tuple[UUID, int, int, str]
"""Run, rank or -1, attempt, context."""
_Bounds: TypeAlias = tuple[int, int, int, int]
"""First step and time, last step and time."""


class Series:
    """Law: a series has one number for ever, and is in the table as soon as it has a chunk.

    For the transactions of one process, one after the other for each group; `forget` what was one that failed. What is
    remembered may be of a run that was removed and came again with other numbers: every query that takes a number asks
    for its key, too, which is never taken from the number.
    """

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._sql = queries
        self._known: dict[_Name, dict[str, int]] = {}
        self._new: dict[_Name, dict[int, str]] = {}
        """Numbers that the transaction has given out, and not yet written."""

    async def numbers(self, connection: Connection, group: Group, keys: Sequence[str]) -> list[int]:
        """The numbers of series; those that are new get theirs."""
        name = _name(group)
        known = self._known.setdefault(name, {})
        while len(self._known) > KNOWN_GROUPS:
            self._known.pop(next(iter(self._known)))
        missing = [key for key in keys if key not in known]
        if missing:
            run_id, rank, attempt, context = name
            # Without the run's lock: those of this group are made under the group's, by nobody else.
            found = await connection.fetch(self._sql["find_series"], run_id, rank, attempt, missing, context)
            known.update((row["key"], row["series_id"]) for row in found)
            fresh = [key for key in missing if key not in known]
            if fresh:
                await connection.execute(self._sql["lock_series_of_run"], run_id)
                new = self._new.setdefault(name, {})
                # Beyond those that are remembered, too: what they were of may be another one's by now.
                last = max(await connection.fetchval(self._sql["last_series"], run_id), *new, *known.values(), 0)
                new.update(enumerate(fresh, last + 1))
                known.update((key, number) for number, key in new.items())
        return [known[key] for key in keys]

    async def overlapping(
        self, connection: Connection, group: Group, keys: Sequence[str], bounds: Sequence[_Bounds]
    ) -> dict[str, list[bytes]]:
        """The chunks that hold something within the bounds of their series, by key."""
        run_id, rank, attempt, context = _name(group)
        numbers = await self.numbers(connection, group, keys)
        columns = map(list, zip(*bounds, strict=True))
        rows = await connection.fetch(
            self._sql["overlapping_chunks"], run_id, rank, attempt, context, keys, numbers, *columns
        )
        there: dict[str, list[bytes]] = {}
        for row in rows:
            there.setdefault(row["key"], []).append(row["body"])
        return there

    async def fold(
        self,
        connection: Connection,
        group: Group,
        keys: Sequence[Sequence[str]],
        numbers: Sequence[Sequence[int]],
        written: Sequence[Written],
    ) -> None:
        """Move the summaries by chunks of series that are in one block each. Raises DatabaseAway."""
        run_id, rank, attempt, context = name = _name(group)
        new = self._new.get(name, {})
        columns = _columns(keys, numbers, written)
        is_new = [new.get(number) == key for key, number in zip(*columns[:2], strict=True)]
        first = [list(itertools.compress(column, is_new)) for column in columns]
        if first[0]:
            for number in first[1]:
                del new[number]
            await connection.execute(self._sql["insert_series"], run_id, rank, attempt, context, *first)
        more = [list(itertools.compress(column, (not one for one in is_new))) for column in columns]
        if more[0]:
            moved = await connection.fetchval(
                self._sql["fold_series"], run_id, rank, attempt, context, OUT_OF_ORDER_LOOSE, *more
            )
            if moved != len(more[0]):
                # The run was removed since its series were looked up; the next pass finds what there is now.
                raise DatabaseAway(f"series of run {run_id.hex} vanished under a pass")

    async def tell(self, connection: Connection, group: Group) -> None:
        """Move the latest values of the run. Last of all in a transaction, which else could wait for one that waits."""
        run_id, rank, attempt, _ = _name(group)
        await connection.execute(self._sql["open_latest"], run_id)
        await connection.execute(self._sql["fold_latest"], run_id, rank, attempt, LATEST_KEYS)

    def forget(self, group: Group) -> None:
        """Numbers that were given out in a transaction that failed do not exist."""
        name = _name(group)
        self._known.pop(name, None)
        self._new.pop(name, None)

    def committed(self, group: Group) -> None:
        """What was given out is written, but for series of which no point was new."""
        if self._new.pop(_name(group), None):
            self._known.pop(_name(group), None)


def _name(group: Group) -> _Name:
    rank = -1 if group.rank is None else group.rank
    return group.run_id, rank, group.attempt, SERVED if group.served else ""


def _columns(
    keys: Sequence[Sequence[str]], numbers: Sequence[Sequence[int]], written: Sequence[Written]
) -> list[list[Any]]:
    """As the queries take them: keys, numbers, summaries, and whether the chunks are loose."""
    ints = np.concatenate([one.ints for one in written], axis=1)
    floats = np.concatenate([one.floats for one in written], axis=1)
    loose = [
        int(one.points_each < chunk.MAX_POINTS // 2) for own, one in zip(numbers, written, strict=True) for _ in own
    ]
    named = [list(itertools.chain(*keys)), list(itertools.chain(*numbers))]
    return [*named, *(row.tolist() for row in (*ints, *floats)), loose]
