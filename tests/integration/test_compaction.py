"""Frames become chunks: what is read stays the same, whatever happens in between."""

import asyncio
import itertools
import json
import math
import struct
import uuid

import asyncpg
import msgpack
import numpy as np
import pytest

from stepstream_ingest import telemetry
from stepstream_ingest.compact import backlog, loop, tidy
from stepstream_ingest.compact.compactor import Compactor
from stepstream_ingest.compact.loop import Compaction
from stepstream_ingest.compact.tidier import Tidier
from stepstream_ingest.compact.tidy import Bounds
from stepstream_ingest.database import Database
from stepstream_ingest.errors import DatabaseAway
from stepstream_schema import chunk, paths, records, sql
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Ragged
from tests.integration.app import RUN, WRITER, fetch, frame, get, metrics, post, running, start

HISTORY = paths.run_history(RUN)


@pytest.fixture
def due_at_once(monkeypatch):
    monkeypatch.setattr(backlog, "DUE_AGE_S", 0.0)


@pytest.fixture
async def compaction(database_url, due_at_once):
    database = Database(database_url)
    yield Compaction(database)
    await database.close()


async def compact_all(compaction: Compaction) -> None:
    while await compaction.round():
        pass


async def tables(database_url: str) -> tuple[int, int]:
    """Frames, and points in chunks."""
    row = (
        await fetch(
            database_url,
            """SELECT (SELECT count(*) FROM frames) AS frames,
                (SELECT coalesce(sum(points), 0)::bigint FROM chunks) AS points""",
        )
    )[0]
    return row["frames"], row["points"]


async def test_a_history_is_the_same_before_and_after(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0, math.nan, -0.0], "b": [math.inf, 5e-324, 1e300]})))
        await post(client, frame(2, metrics({"a": [2.0] * 300, "b": [3.0] * 300}, first_step=3, time_ms=2000)))
        before = [await get(client, HISTORY, key=key) for key in "ab"]
        series = await get(client, paths.run_metrics(RUN))
        await compact_all(compaction)
        assert await tables(database_url) == (0, 606)
        assert [await get(client, HISTORY, key=key) for key in "ab"] == before
        assert await get(client, paths.run_metrics(RUN)) == series


async def test_frames_that_come_later_are_seen_beside_chunks(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0, 2.0, 3.0]})))
        await compact_all(compaction)
        await post(client, frame(2, metrics({"a": [9.0, 9.5]}, first_step=2, time_ms=2000)))
        history = await get(client, HISTORY, key="a")
        (series,) = (await get(client, paths.run_metrics(RUN)))["series"]
    assert history["steps"] == [0, 1, 2, 2, 3]
    assert history["values"] == [1.0, 2.0, 3.0, 9.0, 9.5]
    assert (series["count"], series["last"], series["last_step"]) == (5, 9.5, 3)


async def test_a_long_series_becomes_chunks_of_at_most_8192_points(database_url, compaction):
    values = np.random.default_rng(1).normal(size=20_000).tolist()
    async with running(database_url, compaction=False) as client:
        for number in range(4):
            part = metrics({"a": values[number * 5000 : (number + 1) * 5000]}, first_step=number * 5000)
            await post(client, frame(number + 1, part))
        await compact_all(compaction)
        assert (await get(client, HISTORY, key="a"))["values"] == values
    rows = await fetch(database_url, "SELECT * FROM chunks ORDER BY first_step")
    assert [row["points"] for row in rows] == [6666, 6667, 6667]
    assert [row["stride"] for row in rows] == [1, 1, 1]
    for row in rows:
        own = values[row["first_step"] : row["last_step"] + 1]
        assert (row["min_value"], row["max_value"]) == (min(own), max(own))
        assert row["min_step"] == row["first_step"] + own.index(min(own))
        assert row["value_sum"] == pytest.approx(math.fsum(own))


async def test_a_pass_takes_each_frame_once_however_few_there_were_when_the_table_was_analyzed(database_url):
    waiting = 400
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0]})))
        await fetch(database_url, "ANALYZE frames")
        for number in range(2, waiting + 1):
            await post(client, frame(number, metrics({"a": [1.0]}, first_step=number)))
    connection = await asyncpg.connect(database_url)
    take = "EXPLAIN (ANALYZE, FORMAT JSON) " + sql.queries("compact")["take_frames"]
    plan = json.loads(await connection.fetchval(take, uuid.UUID(RUN), [WRITER], None, 0, 10**6, 10**6))[0]["Plan"]
    await connection.close()
    nodes = [plan]
    for node in nodes:
        nodes += node.get("Plans", [])
    assert any(node["Actual Rows"] == waiting for node in nodes)
    rows = {node["Node Type"]: node["Actual Rows"] * node["Actual Loops"] for node in nodes}
    assert max(rows.values()) == waiting, rows


async def test_many_small_passes_are_tidied_into_few_chunks(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        for number in range(20):
            await post(client, frame(number + 1, metrics({"a": [1.0] * 10, "b": [2.0] * 10}, first_step=number * 10)))
            await compact_all(compaction)
        assert (await get(client, HISTORY, key="a"))["steps"] == list(range(200))
    rows = await fetch(database_url, "SELECT series_id, count(*) AS n FROM chunks GROUP BY series_id")
    assert [row["n"] <= 8 for row in rows] == [True, True]
    assert await tables(database_url) == (0, 400)


async def test_what_is_left_loose_is_tidied_once_the_run_has_ended(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        for number in range(5):
            await post(client, frame(number + 1, start(), metrics({"a": [1.0] * 10}, first_step=number * 10)))
            await compact_all(compaction)
        await client.post(paths.run(RUN) + "/finish", json={})
        await compact_all(compaction)
    assert [row["points"] for row in await fetch(database_url, "SELECT points FROM chunks")] == [50]


async def test_folding_writes_no_index_again_and_what_is_tidy_is_not_noted(database_url, compaction):
    """PostgreSQL's statistics tell whether an update has touched the table alone."""
    keys = [f"key-{number}" for number in range(200)]
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, start(), metrics({key: [1.0] * 10 for key in keys})))
        await compact_all(compaction)
        assert await fetch(database_url, "SELECT FROM untidy_groups") == []
        for number in range(1, 7):
            late = metrics({key: [1.0] * 10 for key in keys}, first_step=number * 10)
            await post(client, frame(number + 1, late))
            await compact_all(compaction)
            await fetch(database_url, "VACUUM series")
        (noted,) = await fetch(database_url, "SELECT rank, loose FROM untidy_groups")
        assert tuple(noted) == (-1, 7)
        done = await written(database_url, updates=6 * 200)
        await client.post(paths.run(RUN) + "/finish", json={})
        await compact_all(compaction)
        assert await fetch(database_url, "SELECT FROM untidy_groups") == []
    assert (done["n_tup_ins"], done["n_tup_upd"]) == (200, 6 * 200)
    # Where a page has no room left the row moves to another, and into the indexes anew.
    assert done["n_tup_hot_upd"] > 0.5 * done["n_tup_upd"]


async def written(database_url: str, updates: int) -> asyncpg.Record:
    """What was done to the table of series; a session of PostgreSQL tells it when it has been idle for a moment."""
    for _ in range(600):
        (done,) = await fetch(
            database_url, "SELECT n_tup_ins, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'series'"
        )
        if done["n_tup_upd"] >= updates:
            break
        await asyncio.sleep(0.1)
    return done


async def test_steps_that_come_late_are_merged_where_they_belong(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        for seq, first in enumerate((20_000, 0, 10_000, 5_000, 15_000), 1):
            await post(client, frame(seq, metrics({"a": [float(first)] * 5000}, first_step=first)))
            await compact_all(compaction)
        history = await get(client, HISTORY, key="a")
    assert history["steps"] == list(range(25_000))
    rows = await fetch(database_url, "SELECT first_step, last_step, points FROM chunks ORDER BY first_step")
    assert all(one["last_step"] < other["first_step"] for one, other in itertools.pairwise(rows))
    assert sum(row["points"] for row in rows) == 25_000


async def test_a_series_that_spans_what_others_hold_is_merged_bit_by_bit(database_url, compaction):
    """One chunk over all the steps of thirty others: more than are opened at once."""
    async with running(database_url, compaction=False) as client:
        for number in range(30):
            await post(client, frame(number + 1, metrics({"a": [1.0] * 8192}, first_step=number * 8192)))
        await compact_all(compaction)
        wide = Matrix(
            keys=("a",),
            steps=np.arange(0, 30 * 8192, 1000, dtype=np.int64),
            times_ms=np.full(246, 5000),
            values=np.full((1, 246), 2.0),
        )
        await post(client, frame(31, wide))
        await compact_all(compaction)
        whole = await get(client, HISTORY, key="a", start_step=99_000, end_step=101_000)
        await fetch(database_url, "UPDATE series SET loose_chunks = 8")
        await fetch(database_url, "DELETE FROM untidy_groups")
        noted = "INSERT INTO untidy_groups SELECT run_id, rank, attempt, loose_chunks FROM series"
        await fetch(database_url, noted)
        await compact_all(compaction)
        assert await get(client, HISTORY, key="a", start_step=99_000, end_step=101_000) == whole
    assert whole["count"] == 2001 + 3
    assert await tables(database_url) == (0, 30 * 8192 + 246)
    rows = await fetch(database_url, "SELECT first_step, last_step FROM chunks ORDER BY first_step")
    assert all(one["last_step"] <= other["first_step"] for one, other in itertools.pairwise(rows))


async def test_repeated_steps_of_one_attempt_are_all_kept(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, metrics({"a": [1.0, 1.0]})), frame(2, metrics({"a": [1.0, 1.0]})))
        await compact_all(compaction)
        assert (await get(client, HISTORY, key="a"))["count"] == 4
    assert await tables(database_url) == (0, 4)


async def test_ragged_records_and_keys_in_several_records_lose_nothing(database_url, compaction):
    ragged = Ragged(
        keys=("a", "c"),
        counts=np.array([2, 1]),
        steps=np.array([7, 5, 6]),
        times_ms=np.array([1, 2, 3]),
        values=np.array([7.0, 5.0, 6.0]),
    )
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, metrics({"a": [0.0, 1.0], "b": [9.0, 9.0]}), ragged, metrics({"a": [2.0]}, 2)))
        await compact_all(compaction)
        found = {key: await get(client, HISTORY, key=key) for key in "abc"}
    assert found["a"]["values"] == [0.0, 1.0, 2.0, 5.0, 7.0]
    assert (found["b"]["values"], found["c"]["steps"]) == ([9.0, 9.0], [6])


async def test_a_frame_with_records_of_a_later_version_is_kept(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        envelope = msgpack.unpackb(frame(1, metrics({"a": [1.0]})))
        envelope[6].append([records.OPTIONAL_KINDS, "of a later version"])
        await post(client, msgpack.packb(envelope))
        await compact_all(compaction)
        assert (await get(client, HISTORY, key="a"))["values"] == [1.0]
    assert len(await fetch(database_url, "SELECT * FROM kept_frames")) == 1


async def test_every_bit_pattern_survives_compaction(database_url, compaction):
    bits = [0x7FF8_0000_DEAD_BEEF, 0xFFF0_0000_0000_0001, 0x8000_0000_0000_0000, 1, 0x7FF0_0000_0000_0000]
    values = np.array(bits, np.uint64).view(np.float64)
    record = Matrix(keys=("a",), steps=np.arange(5), times_ms=np.arange(5), values=values[None])
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, record))
        await compact_all(compaction)
    (row,) = await fetch(database_url, "SELECT body FROM chunks")
    assert [struct.unpack("<Q", struct.pack("<d", one))[0] for one in chunk.decode(row["body"]).values] == bits


async def test_a_pass_that_is_cut_short_leaves_everything_as_it_was(database_url, compaction, monkeypatch):
    async with running(database_url, compaction=False) as client:
        await post(client, frame(1, metrics({"a": [1.0, 2.0], "b": [1.0, 2.0]})))

        async def killed(*_):
            raise DatabaseAway("the connection broke")

        with monkeypatch.context() as broken:
            broken.setattr(Compactor, "_store", killed)
            with pytest.raises(DatabaseAway):
                await compaction.round()
        assert await tables(database_url) == (1, 0)
        await compact_all(compaction)
        assert await tables(database_url) == (0, 4)
        assert (await get(client, HISTORY, key="a"))["count"] == 2


async def test_processes_that_compact_at_once_move_each_point_once(database_url, due_at_once):
    databases = [Database(database_url) for _ in range(4)]
    several = [Compaction(database) for database in databases]
    async with running(database_url, compaction=False) as client:
        for seq in range(1, 41):
            sent = [
                frame(seq, metrics({"a": [float(seq)] * 50}, first_step=seq * 50), writer=rank + 1, rank=rank)
                for rank in range(6)
            ]
            await post(client, *sent)
            if seq % 8 == 0:
                await asyncio.gather(*[compact_all(one) for one in several])
        for rank in range(6):
            assert (await get(client, HISTORY, key="a", rank=rank))["count"] == 2000
    assert await tables(database_url) == (0, 6 * 2000)
    rows = await fetch(
        database_url, "SELECT count(*) AS n, count(DISTINCT series_id) AS ids, sum(points)::int AS p FROM series"
    )
    assert (rows[0]["n"], rows[0]["ids"], rows[0]["p"]) == (6, 6, 12_000)
    for database in databases:
        await database.close()


async def test_the_summary_of_a_series_is_that_of_its_chunks(database_url, compaction):
    rng = np.random.default_rng(3)
    async with running(database_url, compaction=False) as client:
        for seq in range(1, 13):
            values = rng.normal(size=300)
            values[rng.integers(0, 300, 20)] = rng.choice([math.nan, math.inf, -math.inf], 20)
            if seq == 5:
                values[:] = math.nan
            part = metrics({"a": values.tolist()}, first_step=int(rng.integers(0, 2000)), time_ms=seq)
            await post(client, frame(seq, part))
            await compact_all(compaction)
    (row,) = await fetch(
        database_url,
        """SELECT s.points = c.points AND s.nans = c.nans AND s.pos_infs = c.pos AND s.neg_infs = c.neg AS counts,
            s.min_value = c.min AND s.max_value = c.max AS extremes,
            (s.last_step, s.last_time_ms)
                = (SELECT last_step, last_time_ms FROM chunks ORDER BY last_step DESC, last_time_ms DESC LIMIT 1)
                AND (s.first_step, s.first_time_ms)
                = (SELECT first_step, first_time_ms FROM chunks ORDER BY first_step, first_time_ms LIMIT 1) AS ends,
            abs(s.value_sum - c.sum) < 1e-6 AS sums
        FROM series AS s, (
            SELECT sum(points) AS points, sum(nans) AS nans, sum(pos_infs) AS pos, sum(neg_infs) AS neg,
                min(min_value) AS min, max(max_value) FILTER (WHERE max_value <> 'NaN') AS max, sum(value_sum) AS sum
            FROM chunks) AS c""",
    )
    assert (row["counts"], row["extremes"], row["ends"], row["sums"]) == (True, True, True, True)


async def test_the_newest_attempt_of_each_step_is_seen_and_earlier_ones_on_request(database_url, compaction):
    async with running(database_url, compaction=False) as client:
        await post(
            client,
            frame(1, metrics({"a": [0.0] * 1000}), writer=1, rank=0),
            frame(1, metrics({"a": [1.0] * 600}, first_step=900), writer=2, rank=0, attempt=Attempt(0, 1, 0)),
        )
        await compact_all(compaction)
        shown = await get(client, HISTORY, key="a")
        first = await get(client, HISTORY, key="a", attempt="0.0.0")
        buckets = await get(client, HISTORY, key="a", buckets=15)
    assert (shown["count"], shown["values"].count(0.0), shown["values"].count(1.0)) == (1500, 900, 600)
    assert first["count"] == 1000
    assert sum(buckets["counts"]) == 1500
    assert buckets["mean"] == [0.0] * 9 + [1.0] * 6


async def test_a_group_that_fails_keeps_nobody_from_the_others_and_is_tried_again(
    database_url, compaction, monkeypatch, caplog
):
    # For as long as the test takes, and then for no longer.
    monkeypatch.setattr(loop, "ASIDE_S", 600.0)
    before = telemetry.COMPACTION_FAILURES._value.get()
    async with running(database_url, compaction=False) as client:
        for rank, points in enumerate((300, 200, 100)):
            await post(client, frame(1, metrics({"a": [1.0] * points}), writer=70 + rank, rank=rank))
        # A frame that nothing decodes, in the group that comes first: bytes of a disk that lies.
        (row,) = await fetch(database_url, "SELECT body FROM frames WHERE rank = 0")
        await fetch(database_url, "UPDATE frames SET body = substr(body, 1, 40) WHERE rank = 0")
        assert await compaction.round()
        assert await tables(database_url) == (1, 300)
        assert telemetry.COMPACTION_FAILURES._value.get() == before + 1
        # Set aside, it neither fails again at once nor fills the log.
        assert not await compaction.round()
        assert telemetry.COMPACTION_FAILURES._value.get() == before + 1
        await fetch(database_url, "UPDATE frames SET body = $1 WHERE rank = 0", row["body"])
        compaction._aside.clear()
        await compact_all(compaction)
    assert await tables(database_url) == (0, 600)
    assert RUN in caplog.text


async def test_a_group_in_which_the_database_goes_away_comes_last_in_the_next_round(
    database_url, compaction, monkeypatch
):
    async with running(database_url, compaction=False) as client:
        for rank, points in enumerate((200, 100)):
            await post(client, frame(1, metrics({"a": [1.0] * points}), writer=70 + rank, rank=rank))
        compact = Compactor._compact

        async def too_slow(compactor, connection, group):
            if group.rank == 0:
                raise DatabaseAway("it took longer than a minute")
            return await compact(compactor, connection, group)

        monkeypatch.setattr(Compactor, "_compact", too_slow)
        for _ in range(2):
            with pytest.raises(DatabaseAway):
                await compaction.round()
    assert await tables(database_url) == (1, 100)


async def test_writers_are_slowed_and_then_turned_away_when_compaction_is_behind(database_url, monkeypatch):
    assert backlog.delay_s(backlog.SOFT_BYTES) == 0
    assert 0 < backlog.delay_s((backlog.SOFT_BYTES + backlog.SLOW_BYTES) // 2) < backlog.MAX_DELAY_S
    assert backlog.delay_s(backlog.HARD_BYTES) == backlog.MAX_DELAY_S
    monkeypatch.setattr(backlog, "HARD_BYTES", 1)
    monkeypatch.setattr(loop, "POLL_S", 0.05)
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0]})))
        status = 200
        for seq in range(2, 200):
            from stepstream_schema import batch

            answer = await client.post(paths.FRAMES, data=batch.pack([frame(seq, metrics({"a": [1.0]}))]))
            status = answer.status
            if status == 429:
                break
            await asyncio.sleep(0.02)
        assert status == 429
        assert answer.headers["Retry-After"]
        assert (await answer.json())["error_code"] == "COMPACTION_BEHIND"
        text = await (await client.get(paths.METRICS)).text()
    assert "stepstream_backlog_frames" in text


async def test_space_of_deleted_frames_is_given_back(database_url, compaction, monkeypatch):
    monkeypatch.setattr(loop, "VACUUM_BYTES", 1)
    async with running(database_url, compaction=False) as client:
        sizes = []
        values = {f"k{n}": np.random.default_rng(n).normal(size=500).tolist() for n in range(20)}
        for seq in range(1, 31):
            await post(client, frame(seq, metrics(values, first_step=seq * 500)))
            await compact_all(compaction)
            connection = await asyncpg.connect(database_url)
            sizes.append(await connection.fetchval("SELECT pg_total_relation_size('frames')"))
            await connection.close()
    assert max(sizes[10:]) <= 3 * sizes[2]


async def test_a_table_of_frames_that_has_grown_far_is_cut(database_url, compaction, monkeypatch):
    monkeypatch.setattr(loop, "VACUUM_BYTES", 1)
    monkeypatch.setattr(loop, "TRUNCATE_BYTES", 1)
    async with running(database_url, compaction=False) as client:
        await post(client, *[frame(seq, metrics({"a": [1.0]}, first_step=seq)) for seq in range(1, 501)])
        (before,) = await fetch(database_url, "SELECT pg_relation_size('frames') AS bytes")
        await compact_all(compaction)
        async with asyncio.timeout(20):
            while (await fetch(database_url, "SELECT pg_relation_size('frames') AS bytes"))[0]["bytes"]:
                await asyncio.sleep(0.05)
    assert before["bytes"] > 0


async def test_of_chunks_in_any_places_those_are_looked_at_that_are_to_be_merged(database_url):
    random = np.random.default_rng(3)
    series: dict[int, list[Bounds]] = {}
    for number in range(60):
        step = 0
        own = []
        for _ in range(int(random.integers(1, 40))):
            step += int(random.choice([-30, 0, 1, 5, 20], p=[0.05, 0.05, 0.4, 0.4, 0.1]))
            first = (step, int(random.integers(0, 3)))
            last = (step + int(random.choice([0, 3, 4])), int(random.integers(0, 3)))
            points = int(random.choice([1, 100, 4095, 4096, 8192], p=[0.05, 0.05, 0.05, 0.4, 0.45]))
            own.append(Bounds(chunk_id=len(own), first=first, last=max(first, last), points=points))
            step = own[-1].last[0]
        series[number] = sorted(own, key=lambda one: (one.first, one.chunk_id))
    columns = ["run_id", "series_id", "chunk_id", "first_step", "first_time_ms", "last_step", "last_time_ms", "points"]
    others = dict.fromkeys(("min_step", "min_time_ms", "max_step", "max_time_ms", "nans", "pos_infs"), 0)
    others |= dict.fromkeys(("first_value", "last_value", "min_value", "max_value", "value_sum"), 0.0)
    others |= {"neg_infs": 0, "stride": 0, "buckets": b"", "body": b""}
    run_id = uuid.UUID(RUN)
    rows = [
        (run_id, number, one.chunk_id, *one.first, *one.last, one.points, *others.values())
        for number, own in series.items()
        for one in own
    ]
    connection = await asyncpg.connect(database_url)
    await connection.copy_records_to_table("chunks", records=rows, columns=[*columns, *others])
    found = await Tidier(Database(database_url))._bounds(connection, run_id, list(series))
    await connection.close()
    assert {number: tidy.plan(own) for number, own in found.items()} == {
        number: tidy.plan(own) for number, own in series.items()
    }
    assert 0 < sum(map(len, found.values())) < len(rows)
