"""Rows that we encode ourselves, read back by PostgreSQL."""

import io
import math
import struct
from uuid import UUID

import asyncpg
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepstream_ingest.database import COPY_HEADER, COPY_TRAILER
from stepstream_ingest.write.copy_rows import COLUMNS, encode_row
from stepstream_ingest.write.summary import EMPTY, Summary
from stepstream_schema.attempt import Attempt
from stepstream_schema.frame import Frame
from stepstream_schema.records import Heartbeat

RECEIVED_US = 1_800_000_000_123_456
int64s = st.integers(-(2**63), 2**63 - 1)


async def stored(database_url: str, row: bytes):
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("DELETE FROM frames")
        source = io.BytesIO(COPY_HEADER + row + COPY_TRAILER)
        await connection.copy_to_table("frames", source=source, columns=COLUMNS, format="binary")
        return await connection.fetchrow("SELECT *, extract(epoch FROM received_at) AS at FROM frames")
    finally:
        await connection.close()


def empty_frame(rank: int | None = None, attempt: Attempt | None = None) -> Frame:
    return Frame(
        run_id="0f" * 16, writer=2**62, seq=3, rank=rank, attempt=attempt or Attempt(), records=(Heartbeat(time_ms=1),)
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True),
    data=st.data(),
)
async def test_arrays_of_any_length_and_content_come_back(database_url, keys, data):
    count = len(keys)
    floats = st.lists(st.floats(width=64), min_size=count, max_size=count)
    ints = st.lists(int64s, min_size=count, max_size=count)
    summary = Summary(
        keys=tuple(keys),
        counts=np.array(data.draw(st.lists(st.integers(0, 2**31 - 1), min_size=count, max_size=count)), np.int64),
        last_steps=np.array(data.draw(ints), np.int64),
        last_times_ms=np.array(data.draw(ints), np.int64),
        lasts=np.array(data.draw(floats), np.float64),
        mins=np.array(data.draw(floats), np.float64),
        maxs=np.array(data.draw(floats), np.float64),
    )
    row = await stored(database_url, encode_row(empty_frame(), summary, b"body", RECEIVED_US))
    assert tuple(row["keys"]) == summary.keys
    assert row["counts"] == summary.counts.tolist()
    assert row["last_steps"] == summary.last_steps.tolist()
    for name in ("lasts", "mins", "maxs"):
        expected = getattr(summary, name).tolist()
        assert [struct.pack("<d", one) for one in row[name]] == [struct.pack("<d", one) for one in expected]


async def test_the_envelope_comes_back(database_url):
    frame = empty_frame(rank=511, attempt=Attempt(1, 2, 3))
    row = await stored(database_url, encode_row(frame, EMPTY, bytes(range(256)), RECEIVED_US))
    assert (row["run_id"], row["writer"], row["seq"]) == (UUID("0f" * 16), 2**62, 3)
    assert (row["rank"], Attempt.unpack(row["attempt"]), row["points"]) == (511, Attempt(1, 2, 3), 0)
    assert math.isclose(float(row["at"]), RECEIVED_US / 1e6, abs_tol=1e-6)
    assert row["body"] == bytes(range(256))
    assert (await stored(database_url, encode_row(empty_frame(), EMPTY, b"", RECEIVED_US)))["rank"] is None
