"""What one transaction does with many candidates. Pure: cursors in, rows and arrays out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from uuid import UUID

from stepstream_ingest.write.candidate import Candidate
from stepstream_ingest.write.cursor import Cursor, Verdict
from stepstream_schema.records import Dataset, Start

WriterKey: TypeAlias = tuple[UUID, int]
Fate: TypeAlias = Verdict | Literal["closed"]
"""Of a candidate; `closed` is its run, and it needs one."""

RANKS_THAT_SPEAK_FOR_THE_RUN = (None, 0)


def writer_key(candidate: Candidate) -> WriterKey:
    """The key of the candidate's writer."""
    return UUID(candidate.run_id), candidate.writer


@dataclass(frozen=True, slots=True)
class Group:
    """The candidates that commit together, and what came of each.

    Law: candidates are decided in order, each number once; what is `ahead` or `closed` leaves no trace.
    """

    candidates: Sequence[Candidate]
    cursors: Mapping[WriterKey, Cursor]
    """Of every writer in the group, as the database has them; moved by `decide`."""
    verdicts: list[Fate] = field(default_factory=list)
    new: list[Candidate] = field(default_factory=list)

    @classmethod
    def decide(
        cls,
        candidates: Sequence[Candidate],
        cursors: Mapping[WriterKey, Cursor],
        closed: Collection[UUID] = frozenset(),
    ) -> "Group":
        """Which candidates are new. Runs that are not there, or deleted, are `closed`."""
        group = cls(candidates, cursors)
        for candidate in candidates:
            run_id, writer = writer_key(candidate)
            if candidate.needs_run and run_id in closed:
                group.verdicts.append("closed")
                continue
            verdict = cursors[run_id, writer].consume(candidate.seq)
            group.verdicts.append(verdict)
            if verdict == "new":
                group.new.append(candidate)
        return group

    def rows(self) -> list[bytes]:
        """The rows to copy."""
        return [candidate.row for candidate in self.new if candidate.row is not None]

    def runs(self) -> list[UUID]:
        """Every run with a new frame, in key order."""
        return sorted({UUID(candidate.run_id) for candidate in self.new})

    def announcements(self) -> dict[UUID, Start]:
        """The first start record of each run."""
        starts: dict[UUID, Start] = {}
        for candidate in self.new:
            if candidate.start is not None:
                starts.setdefault(UUID(candidate.run_id), candidate.start)
        return dict(sorted(starts.items()))

    def promises(self) -> dict[WriterKey, int]:
        """Heartbeat intervals that writers state, in seconds."""
        return {writer_key(one): one.start.heartbeat_s for one in self.new if one.start is not None}

    def params(self) -> list[tuple[UUID, str, str, int, int]]:
        """(run, key, value, writer, number), in the order of arrival."""
        return [(UUID(one.run_id), key, value, one.writer, one.seq) for one in self.new for key, value in one.params]

    def tags(self) -> list[tuple[UUID, str, str | None, int, int, int]]:
        """(run, key, value, event time, writer, number)."""
        return [
            (UUID(one.run_id), key, value, time_ms, one.writer, one.seq)
            for one in self.new
            for key, value, time_ms in one.tags
        ]

    def datasets(self) -> list[tuple[UUID, Dataset]]:
        """What runs have read, in key order."""
        said = [(UUID(one.run_id), dataset) for one in self.new for dataset in one.datasets]
        return sorted(said, key=lambda one: (one[0], one[1].name, one[1].digest))

    def writer_statuses(self) -> dict[WriterKey, tuple[str, int]]:
        """The last that each writer says of itself: (status, event time)."""
        return {writer_key(one): (said.status, said.time_ms) for one in self.new for said in one.statuses}

    def run_statuses(self) -> list[tuple[UUID, str, int, int, int]]:
        """(run, status, event time, writer, number) from those who speak for their run: rank 0, or no rank at all."""
        return [
            (UUID(one.run_id), said.status, said.time_ms, one.writer, one.seq)
            for one in self.new
            if one.rank in RANKS_THAT_SPEAK_FOR_THE_RUN
            for said in one.statuses
        ]
