"""Writes the golden files of format version 1. They are released: this is kept to show how they were made.

python -m tests.golden.make NAME ...   writes the named frames, and refuses to overwrite one that exists.
python -m tests.golden.make chunks     writes the chunks of version 1, likewise.
"""

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np

from stepstream_schema import chunk
from stepstream_schema.attempt import Attempt
from stepstream_schema.frame import Frame, encode
from stepstream_schema.points import Points
from stepstream_schema.records import Dataset, Heartbeat, Matrix, Params, Ragged, Record, Start, Status, Tags
from tests.unit.schema.strategies import bits_to_floats, content

HERE: Final = Path(__file__).parent
NOW_MS: Final = 1_795_000_000_000

MATRIX: Final = Matrix(
    keys=("train/loss", "train/lr"),
    steps=np.array([100, 101, 102], np.int64),
    times_ms=np.array([NOW_MS, NOW_MS + 12, NOW_MS + 25], np.int64),
    values=np.array([[0.75, 0.5, 0.625], [0.001, 0.001, 0.001]]),
)
ODD_BITS: Final = [0x8000000000000000, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF0000000000001, 0xFFF8DEADBEEF0001]
RAGGED: Final = Ragged(
    keys=("eval/größe", "nan", "单步"),
    counts=np.array([1, 5, 2], np.int64),
    steps=np.array([-5, 2**63 - 1, -(2**63), 0, 0, 7, 9, 9], np.int64),
    times_ms=np.array([NOW_MS, NOW_MS, NOW_MS - 1000, 0, -1, NOW_MS, NOW_MS, NOW_MS], np.int64),
    values=bits_to_floats([0x3FF0000000000000, *ODD_BITS, 1, 0x7FEFFFFFFFFFFFFF]),
)


def _frame(seq: int, rank: int | None, attempt: Attempt, *records: Record) -> Frame:
    run_id = "00112233445566778899aabbccddeeff"
    return Frame(run_id=run_id, writer=0x1122334455667788, seq=seq, rank=rank, attempt=attempt, records=records)


FRAMES: Final = {
    "frame_v1_matrix": _frame(2, 0, Attempt(), MATRIX),
    "frame_v1_ragged": _frame(3, 3, Attempt(1, 2, 3), RAGGED),
    "frame_v1_records": _frame(
        1,
        None,
        Attempt(elastic=1),
        Start(experiment="demo", name="first run", time_ms=NOW_MS, user="ada", heartbeat_s=15),
        Params(items=(("lr", "0.001"), ("optimizer", "adam"))),
        Tags(items=(("host", "node-1", NOW_MS), ("draft", None, NOW_MS + 1))),
        Heartbeat(time_ms=NOW_MS + 2),
        Status(status="FINISHED", time_ms=NOW_MS + 3),
    ),
    "frame_v1_dataset": _frame(
        4,
        None,
        Attempt(),
        Dataset(
            name="iris",
            digest="d1",
            source_type="http",
            source='{"url": "https://example.org/iris.csv"}',
            schema='{"columns": 5}',
            profile="",
            tags=(("mlflow.data.context", "training"),),
        ),
    ),
    "frame_v1_tombstone": _frame(2**62 - 1, 2**31 - 1, Attempt(65_535, 65_535, 65_535)),
}


_STEPS: Final = np.array([-7, 0, 0, 5, 2**62], np.int64)
_TIMES: Final = np.array([NOW_MS, NOW_MS + 1, NOW_MS + 30, NOW_MS, NOW_MS], np.int64)
CHUNKS: Final = {
    "chunk_v1_float64": Points(steps=_STEPS, times_ms=_TIMES, values=bits_to_floats(ODD_BITS)),
    "chunk_v1_float32": Points(
        steps=np.arange(100, dtype=np.int64), times_ms=NOW_MS + 3 * np.arange(100), values=np.arange(100) / 64
    ),
}


def write_chunks() -> None:
    """Each chunk as bytes, and all of them as one JSON."""
    told = {}
    for name, points in CHUNKS.items():
        with (HERE / f"{name}.bin").open("xb") as file:
            file.write(chunk.encode(points))
        bits = points.values.view(np.uint64).tolist()
        told[name] = {"steps": points.steps.tolist(), "times_ms": points.times_ms.tolist(), "bits": bits}
    (HERE / "chunk_v1.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
    """Write each named frame as bytes and as JSON."""
    if names == ["chunks"]:
        write_chunks()
        return
    for name in names:
        with (HERE / f"{name}.bin").open("xb") as file:
            file.write(encode(FRAMES[name]))
        text = json.dumps(content(FRAMES[name]), indent=1, ensure_ascii=False)
        (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
