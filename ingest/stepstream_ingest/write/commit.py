"""The transaction of one group: frames and cursors together, so that a frame is stored once or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import orjson

from stepstream_ingest.database import Connection, Database, stream_copy
from stepstream_ingest.write.candidate import Candidate
from stepstream_ingest.write.copy_rows import COLUMNS
from stepstream_ingest.write.cursor import Cursor
from stepstream_ingest.write.group import Fate, Group, WriterKey, writer_key
from stepstream_schema import sql
from stepstream_schema.records import DATASET_TEXTS

NAME_TAG: Final = "mlflow.runName"
"""The tag that is a run's name: who sets it renames the run."""
KNOWN_MAX: Final = 100_000
"""Writers and runs whose rows are known to exist; beyond this many they are looked up again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamConflict:
    """A param that keeps its first value."""

    run_id: str
    writer: int
    seq: int
    key: str
    stored: str
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenRun:
    """A run that was born in a deleted experiment: nobody sees it until that is restored."""

    run_id: str
    experiment_id: int
    experiment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a group's candidates, in their order."""

    verdicts: Sequence[Fate]
    marks: dict[WriterKey, int]
    conflicts: Sequence[ParamConflict] = ()
    hidden: Sequence[HiddenRun] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Locked:
    """The group's writers, as the database has them."""

    cursors: dict[WriterKey, Cursor]
    closed: frozenset[UUID]
    """Runs that are not there, or deleted."""
    lost: frozenset[UUID]
    """Runs that were given up."""


class Committer:
    """Commits groups. What it remembers only saves statements: nothing is lost when it is forgotten."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = sql.queries("write")
        self._known_writers: set[WriterKey] = set()
        self._known_runs: set[UUID] = set()

    async def commit(self, candidates: Sequence[Candidate]) -> Outcome:
        """Store what is new. Raises DatabaseAway, with nothing of the group stored."""
        async with self._database.connection() as connection:
            await self._insert_writers(connection, candidates)
            async with connection.transaction():
                group, conflicts, hidden = await self._write(connection, candidates)
        self._remember(group)
        marks = {key: cursor.mark for key, cursor in group.cursors.items()}
        return Outcome(verdicts=group.verdicts, marks=marks, conflicts=conflicts, hidden=hidden)

    async def _insert_writers(self, connection: Connection, candidates: Sequence[Candidate]) -> None:
        # Before the transaction: within it, waiting for another group's insert while holding locks could deadlock.
        missing = {writer_key(one): one for one in candidates if writer_key(one) not in self._known_writers}
        if missing:
            ordered = sorted(missing.items())
            # A run that is removed takes its writers along: who comes anew does not rely on what is remembered of it.
            self._known_runs.difference_update(run for run, _ in missing)
            await connection.execute(
                self._sql["insert_writers"],
                [run for (run, _), _ in ordered],
                [writer for (_, writer), _ in ordered],
                [one.rank for _, one in ordered],
                [one.attempt for _, one in ordered],
                [one.needs_run for _, one in ordered],
            )

    async def _write(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> tuple[Group, Sequence[ParamConflict], Sequence[HiddenRun]]:
        locked = await self._lock(connection, candidates)
        cursors = locked.cursors
        group = Group.decide(candidates, cursors, locked.closed)
        await self._copy(connection, group.rows())
        await connection.execute(
            self._sql["move_cursors"],
            [run for run, _ in cursors],
            [writer for _, writer in cursors],
            [cursor.mark for cursor in cursors.values()],
            [cursor.to_bytes() for cursor in cursors.values()],
        )
        if not group.new:
            return group, (), ()
        hidden = await self._runs(connection, group, locked.lost)
        conflicts = await self._params(connection, group)
        await self._tags(connection, group)
        await self._datasets(connection, group)
        await self._statuses(connection, group)
        return group, conflicts, hidden

    async def _lock(self, connection: Connection, candidates: Sequence[Candidate]) -> _Locked:
        keys = sorted({writer_key(one) for one in candidates})
        rows = await connection.fetch(
            self._sql["lock_writers"], [run for run, _ in keys], [writer for _, writer in keys]
        )
        cursors = {(row["run_id"], row["writer"]): Cursor.from_row(row["mark"], row["beyond"]) for row in rows}
        gone = [key for key in keys if key not in cursors]
        if gone:
            # Their run is deleted, or was removed since they were remembered.
            self._known_writers.difference_update(gone)
            self._known_runs.difference_update(run for run, _ in gone)
            if any(writer_key(one) not in cursors and not one.needs_run for one in candidates):
                # The transaction fails, and the next try inserts them.
                raise TimeoutError("writers vanished between two statements")
        return _Locked(
            cursors=cursors,
            closed=frozenset(
                {run for run, _ in keys} - {row["run_id"] for row in rows if row["lifecycle_stage"] == "active"}
            ),
            lost=frozenset(row["run_id"] for row in rows if row["lost"]),
        )

    async def _copy(self, connection: Connection, rows: Sequence[bytes]) -> None:
        if rows:
            await connection.copy_to_table("frames", source=stream_copy(rows), columns=COLUMNS, format="binary")

    async def _runs(self, connection: Connection, group: Group, lost: frozenset[UUID]) -> Sequence[HiddenRun]:
        hidden: list[HiddenRun] = []
        starts = group.announcements()
        if starts:
            promises = group.promises()
            await connection.execute(
                self._sql["promise_heartbeats"],
                [run for run, _ in promises],
                [writer for _, writer in promises],
                list(promises.values()),
            )
            await connection.execute(
                self._sql["insert_experiments"], sorted({one.experiment for one in starts.values()})
            )
            born = await connection.fetch(
                self._sql["announce_runs"],
                list(starts),
                [one.experiment for one in starts.values()],
                [one.name for one in starts.values()],
                [one.user for one in starts.values()],
                [one.time_ms for one in starts.values()],
            )
            hidden = [
                HiddenRun(
                    run_id=row["run_id"].hex, experiment_id=row["experiment_id"], experiment=row["deleted_experiment"]
                )
                for row in born
                if row["deleted_experiment"] is not None
            ]
            await connection.execute(self._sql["tag_names"], list(starts), NAME_TAG)
        runs = group.runs()
        unknown = [run for run in runs if run not in self._known_runs and run not in starts]
        if unknown:
            await connection.execute(self._sql["place_runs"], unknown)
        if not lost.isdisjoint(runs):
            await connection.execute(self._sql["revive_runs"], sorted(lost.intersection(runs)))
        return hidden

    async def _params(self, connection: Connection, group: Group) -> Sequence[ParamConflict]:
        params = group.params()
        if not params:
            return ()
        columns = [list(column) for column in zip(*params, strict=True)]
        await connection.execute(self._sql["insert_params"], *columns[:3])
        rows = await connection.fetch(self._sql["find_param_conflicts"], *columns)
        if rows:
            fields = ("run_id", "key", "refused", "writer", "seq")
            await connection.execute(
                self._sql["record_param_conflicts"], *[[row[field] for row in rows] for field in fields]
            )
        return [
            ParamConflict(
                run_id=row["run_id"].hex,
                writer=row["writer"],
                seq=row["seq"],
                key=row["key"],
                stored=row["stored"],
                refused=row["refused"],
            )
            for row in rows
        ]

    async def _tags(self, connection: Connection, group: Group) -> None:
        tags = group.tags()
        if tags:
            await connection.execute(self._sql["set_tags"], *_columns(tags))
        named = sorted({run for run, key, *_ in tags if key == NAME_TAG})
        if named:
            await connection.execute(self._sql["rename_runs"], named, NAME_TAG)

    async def _datasets(self, connection: Connection, group: Group) -> None:
        said = group.datasets()
        if said:
            texts = [[getattr(one, name) for _, one in said] for name in DATASET_TEXTS]
            tags = [orjson.dumps(dict(one.tags)).decode() for _, one in said]
            runs = [run for run, _ in said]
            await connection.execute(self._sql["insert_datasets"], runs, [uuid4() for _ in said], *texts)
            await connection.execute(self._sql["use_datasets"], runs, *texts[:2], tags)

    async def _statuses(self, connection: Connection, group: Group) -> None:
        own = [(run, writer, status, time_ms) for (run, writer), (status, time_ms) in group.writer_statuses().items()]
        if own:
            await connection.execute(self._sql["set_writer_status"], *_columns(own))
        of_runs = group.run_statuses()
        if of_runs:
            await connection.execute(self._sql["set_run_status"], *_columns(of_runs))

    def _remember(self, group: Group) -> None:
        if len(self._known_writers) + len(self._known_runs) > KNOWN_MAX:
            self._known_writers.clear()
            self._known_runs.clear()
        self._known_writers.update(group.cursors)
        self._known_runs.update(group.runs())


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
