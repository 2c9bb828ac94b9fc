"""The floor: plain binary COPY, one row a point, as fast as PostgreSQL takes it."""

import asyncio
import io
import struct
import time
from typing import Any

import asyncpg
import numpy as np

ROWS_PER_COPY = 100_000
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)
ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("series_size", ">i4"),
        ("series", ">i4"),
        ("step_size", ">i4"),
        ("step", ">i8"),
        ("time_size", ">i4"),
        ("time", ">i8"),
        ("value_size", ">i4"),
        ("value", ">f8"),
    ]
)


async def measure(database: str, *, indexed: bool, seconds: float, writers: int) -> dict[str, Any]:
    """Points a second; the rows' bytes are made by NumPy, so that the floor is PostgreSQL's and not the client's."""
    connections = [await asyncpg.connect(database) for _ in range(writers)]
    key = ", PRIMARY KEY (series, step, time)" if indexed else ""
    await connections[0].execute(
        f"CREATE TABLE points (series int4 NOT NULL, step int8 NOT NULL, time int8 NOT NULL, value float8{key})"
    )
    await asyncio.gather(*[_write(each, number, 0, time.monotonic() + 1.0) for number, each in enumerate(connections)])
    began = time.monotonic()
    counts = await asyncio.gather(
        *[_write(each, number, 10**12, began + seconds) for number, each in enumerate(connections)]
    )
    elapsed = time.monotonic() - began
    for connection in connections:
        await connection.close()
    return {"points_per_s": round(sum(counts) / elapsed), "seconds": round(elapsed, 2), "writers": writers}


async def _write(connection: Any, writer: int, first_step: int, until: float) -> int:
    rows = np.zeros(ROWS_PER_COPY, ROW)
    rows["fields"], rows["series_size"] = 4, 4
    rows["step_size"] = rows["time_size"] = rows["value_size"] = 8
    # 100 series in turn, as a training logs them.
    rows["series"] = writer * 100 + np.arange(ROWS_PER_COPY) % 100
    rows["value"] = np.random.default_rng(writer).normal(size=ROWS_PER_COPY)
    steps = np.arange(ROWS_PER_COPY) // 100
    written = 0
    while time.monotonic() < until:
        rows["step"] = first_step + steps
        rows["time"] = 1_700_000_000_000 + steps
        first_step += ROWS_PER_COPY // 100
        source = io.BytesIO(HEADER + rows.tobytes() + TRAILER)
        await connection.copy_to_table("points", source=source, format="binary")
        written += ROWS_PER_COPY
    return written
