"""Logs, compacts, kills, resumes and reads in any order, against a plain dictionary."""

import asyncio
import math
import struct
from collections import Counter
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stepstream_ingest.compact import backlog, series, tidy
from stepstream_ingest.compact.compactor import Compactor
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.compact.tidier import Tidier
from stepstream_ingest.database import Database
from stepstream_ingest.errors import DatabaseAway
from stepstream_ingest.filters import Comparison
from stepstream_ingest.read.history import History, Wanted, Window
from stepstream_ingest.tracking.runs import Runs
from stepstream_ingest.write.candidate import validate
from stepstream_ingest.write.commit import Committer
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Ragged
from tests.integration.app import frame

RUN = "5a" * 16
KEYS = ("a", "b")
RANKS = (None, 0, 3)

Place = tuple[str, int, int]
"""(key, rank or -1, packed attempt)"""
Point = tuple[int, int, bytes]
"""(step, time, bits)"""

floats = st.floats(width=64) | st.sampled_from([0.0, 1.0])
steps = st.integers(-20, 60)
times = st.integers(0, 5)


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


class Killed(Exception):
    """The process is gone in the middle of a transaction."""


class Store(RuleBasedStateMachine):
    """Law: whatever happens, the store holds exactly what was acknowledged, and shows it by the rule of layers."""

    database_url: str

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.run(self._clear())
        self.database = Database(self.database_url)
        self.compaction = Compaction(self.database)
        self.seqs: Counter[int] = Counter()
        self.resumes = 0
        self.sent: list[bytes] = []
        self.model: dict[Place, list[Point]] = {}

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def _clear(self) -> None:
        connection = await asyncpg.connect(self.database_url)
        await connection.execute(
            "TRUNCATE frames, chunks, series, latest, untidy_groups, writers, runs, params, tags, kept_frames CASCADE"
        )
        await connection.close()

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.database.close())
            self.loop.close()

    # What trainings do

    @rule(
        rank=st.sampled_from(RANKS),
        rows=st.lists(st.tuples(steps, times, floats, floats), min_size=1, max_size=12),
        in_order=st.booleans(),
    )
    def log_rows(self, rank, rows, in_order) -> None:
        if in_order:
            rows = sorted(rows, key=lambda row: row[:2])
        record = Matrix(
            keys=KEYS,
            steps=np.array([row[0] for row in rows], np.int64),
            times_ms=np.array([row[1] for row in rows], np.int64),
            values=np.array([[row[2] for row in rows], [row[3] for row in rows]]),
        )
        self._send(rank, record)
        for step, time_ms, first, second in rows:
            self._expect("a", rank, step, time_ms, first)
            self._expect("b", rank, step, time_ms, second)

    @rule(first=steps, count=st.integers(1, 30), rank=st.sampled_from(RANKS), value=floats)
    def log_a_stretch(self, first, count, rank, value) -> None:
        """What a training does nearly always."""
        self.log_rows(rank, [(first + number, number % 6, value, float(number)) for number in range(count)], True)

    @rule(rank=st.sampled_from(RANKS), points=st.lists(st.tuples(steps, times, floats), min_size=1, max_size=8))
    def log_one_key(self, rank, points) -> None:
        record = Ragged(
            keys=("a",),
            counts=np.array([len(points)], np.int64),
            steps=np.array([one[0] for one in points], np.int64),
            times_ms=np.array([one[1] for one in points], np.int64),
            values=np.array([one[2] for one in points]),
        )
        self._send(rank, record)
        for step, time_ms, value in points:
            self._expect("a", rank, step, time_ms, value)

    @rule(often=st.integers(0, 3))
    def resume(self, often) -> None:
        """The job is restarted from a checkpoint: what it logs from now on belongs to a new attempt."""
        self.resumes += often == 0

    @rule(data=st.data())
    def send_again(self, data) -> None:
        if self.sent:
            again = data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=3))
            self._post(again)

    def _send(self, rank, record) -> None:
        writer = 1000 * (self.resumes + 1) + (rank or 0) + (rank is not None)
        self.seqs[writer] += 1
        data = frame(
            self.seqs[writer], record, run_id=RUN, writer=writer, rank=rank, attempt=Attempt(0, 0, self.resumes)
        )
        self.sent.append(data)
        self._post([data])

    def _post(self, frames) -> None:
        candidates = [validate(place, data, 1_700_000_000_000_000)[0] for place, data in enumerate(frames)]
        self.run(Committer(self.database).commit(candidates))

    def _expect(self, key, rank, step, time_ms, value) -> None:
        place = (key, -1 if rank is None else rank, Attempt(0, 0, self.resumes).packed)
        self.model.setdefault(place, []).append((step, time_ms, bits(value)))

    # What the server does

    @rule(process=st.sampled_from(["this", "another"]))
    def compact(self, process) -> None:
        self.run((self.compaction if process == "this" else Compaction(self.database)).round())

    @rule(after=st.integers(0, 3), what=st.sampled_from([(Compactor, "_store"), (Tidier, "_merge")]))
    def kill_a_pass(self, after, what) -> None:
        owner, name = what
        whole = getattr(owner, name)
        left = [after]

        async def until_killed(self, *arguments):
            done = await whole(self, *arguments)
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return done

        setattr(owner, name, until_killed)
        try:
            self.run(Compaction(self.database).round())
        except (Killed, DatabaseAway):
            pass
        finally:
            setattr(owner, name, whole)

    @rule()
    def end_the_run(self) -> None:
        """So that whatever is loose is tidied."""
        self.run(self.database.fetch("UPDATE runs SET status = 'FINISHED'"))

    # What must hold

    @invariant()
    def every_point_is_stored_once(self) -> None:
        if not hasattr(self, "model"):
            return
        row = self.run(
            self.database.fetch(
                """SELECT (f.points + c.points)::bigint AS stored, c.points = s.points AS same
                FROM (SELECT coalesce(sum(points), 0) AS points FROM frames) AS f,
                    (SELECT coalesce(sum(points), 0) AS points FROM chunks) AS c,
                    (SELECT coalesce(sum(points), 0) AS points FROM series) AS s"""
            )
        )[0]
        assert row["stored"] == sum(map(len, self.model.values()))
        assert row["same"]

    @invariant()
    def what_is_read_is_what_was_logged(self) -> None:
        if hasattr(self, "model"):
            for key in KEYS:
                self._read(key, None, -20, 100)

    @invariant()
    def a_run_shows_the_last_value_of_its_lowest_rank(self) -> None:
        if not hasattr(self, "model") or not self.model:
            return
        runs = Runs(self.database, self.database)
        run = self.run(runs.get(_uuid()))
        shown = {key: (step, time_ms, repr(value + 0.0)) for key, value, step, time_ms in run.metrics}
        expected = {key: self._last(key) for key in KEYS if any(place[0] == key for place in self.model)}
        assert shown == {key: (step, time_ms, repr(value + 0.0)) for key, (step, time_ms, value) in expected.items()}
        for key, (_, _, value) in expected.items():
            if math.isfinite(value):
                same = Comparison(entity="metric", key=key, operator="=", value=value, is_number=True)
                found = self.run(runs.search([0], [same], [], stage="all", limit=2, offset=0))
                assert found == [_uuid()]

    def _last(self, key) -> tuple[int, int, float]:
        place = min((place for place in self.model if place[0] == key), key=lambda place: (place[1], -place[2]))
        points = [(step, time_ms, struct.unpack("<d", value)[0]) for step, time_ms, value in self.model[place]]
        return max(points, key=lambda point: (*point[:2], not math.isnan(point[2]), point[2]))

    @rule(key=st.sampled_from(KEYS), rank=st.sampled_from([-1, 0, 3]), start=steps, end=steps)
    def read_a_window_of_a_rank(self, key, rank, start, end) -> None:
        self._read(key, rank, start, end)

    def _read(self, key, rank, start, end) -> None:
        wanted = Wanted(run_id=_uuid(), key=key, rank=rank)
        window = Window(start=min(start, end), end=max(start, end))
        found = self.run(History(self.database).points(wanted, window))
        shown = [
            (int(step), int(time_ms), bits(value))
            for step, time_ms, value in zip(found.steps, found.times_ms, found.values, strict=True)
        ]
        expected = [one for one in self._visible(key, rank) if window.start <= one[0] <= window.end]
        assert Counter(shown) == Counter(expected)
        assert [one[:2] for one in shown] == sorted(one[:2] for one in shown)

    @rule(key=st.sampled_from(KEYS), buckets=st.integers(1, 30))
    def chart(self, key, buckets) -> None:
        _, ((_, line),) = self.run(History(self.database).buckets([Wanted(run_id=_uuid(), key=key)], Window(), buckets))
        expected = self._visible(key, None)
        assert len(line) <= buckets
        assert int(line.int_column("count").sum()) == len(expected)
        numbers = [struct.unpack("<d", one[2])[0] for one in expected]
        numbers = [one for one in numbers if one == one]
        if numbers:
            assert np.fmin.reduce(line.float_column("min")) == min(numbers)
            assert np.fmax.reduce(line.float_column("max")) == max(numbers)
        assert int(line.int_column("nans").sum()) == len(expected) - len(numbers)

    def _visible(self, key, rank) -> list[Point]:
        best: dict[int, tuple[int, int]] = {}
        for (of, its_rank, attempt), points in self.model.items():
            if of == key and rank in (None, its_rank):
                for step, _, _ in points:
                    best[step] = min(best.get(step, (9, 0)), (its_rank, -attempt))
        return [
            point
            for (of, its_rank, attempt), points in self.model.items()
            if of == key and rank in (None, its_rank)
            for point in points
            if best[point[0]] == (its_rank, -attempt)
        ]


def _uuid():
    from uuid import UUID

    return UUID(RUN)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("latest_keys", [1, 128])
def test_the_store_equals_a_dictionary(store_url, monkeypatch, latest_keys):
    monkeypatch.setattr(backlog, "DUE_AGE_S", -1e12)  # frames of these tests bear any time
    # Small enough that a few dozen points make many chunks.
    monkeypatch.setattr("stepstream_schema.chunk.MAX_POINTS", 8)
    monkeypatch.setattr("stepstream_schema.chunk.BUCKET_POINTS", 2)
    monkeypatch.setattr("stepstream_ingest.read.view.BUCKET_POINTS", 2)
    monkeypatch.setattr(tidy, "SMALL_POINTS", 4)
    monkeypatch.setattr(tidy, "MAX_CHUNKS", 3)
    monkeypatch.setattr("stepstream_ingest.compact.compactor.PASS_POINTS", 40)
    monkeypatch.setattr(series, "LATEST_KEYS", latest_keys)
    Store.database_url = store_url
    case = Store.TestCase
    case.settings = settings(
        max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()
