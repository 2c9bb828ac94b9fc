"""Nanoseconds a point of each pure step between log() and COPY: `python -m benchmarks.micro`."""

import time
from collections.abc import Callable

import numpy as np

from benchmarks import results
from benchmarks.load import SHAPES
from stepstream.buffer import Row
from stepstream.framer import Framer
from stepstream_ingest.write.copy_rows import encode_row
from stepstream_ingest.write.cursor import Cursor
from stepstream_ingest.write.summary import summarise
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Matrix, Start

MEASURE_S = 0.5


def main() -> None:
    """Measure every shape."""
    measured = {f"{keys}x{steps}": _shape(keys, steps) for keys, steps in SHAPES}
    results.emit(shapes=measured, cursor_ns=round(_cursor(), 1))


def _shape(keys: int, steps: int) -> dict[str, float]:
    rows = _rows(keys, steps)
    start = Start(experiment="e", name="n", time_ms=1)
    framer = Framer(run_id="ab" * 16, writer=1, rank=0, attempt=Attempt(), start=start)
    data = next(iter(framer.seal(rows, []))).data
    frame = wire.decode(data)
    matrices = [record for record in frame.records if isinstance(record, Matrix)]
    summary = summarise(matrices)
    points = keys * steps
    return {
        "encode_ns": round(_nanoseconds(lambda: list(framer.seal(rows, []))) / points, 2),
        "decode_ns": round(_nanoseconds(lambda: wire.decode(data)) / points, 2),
        "summarise_ns": round(_nanoseconds(lambda: summarise(matrices)) / points, 2),
        "copy_row_ns": round(_nanoseconds(lambda: encode_row(frame, summary, data, 0)) / points, 2),
        "bytes_per_point": round(len(data) / points, 2),
    }


def _rows(keys: int, steps: int) -> list[Row]:
    values = np.random.default_rng(0).normal(size=(steps, keys)).tolist()
    names = [f"metric_{number}" for number in range(keys)]
    return [(step, step * 10**7, dict(zip(names, row, strict=True))) for step, row in enumerate(values)]


def _cursor() -> float:
    cursor = Cursor()
    numbers = iter(range(1, 10**9))
    return _nanoseconds(lambda: cursor.consume(next(numbers)))


def _nanoseconds(work: Callable[[], object]) -> float:
    """The best of five, each of as many repetitions as fill a tenth of a second."""
    work()
    best = float("inf")
    for _ in range(5):
        began, times = time.perf_counter(), 0
        while time.perf_counter() - began < MEASURE_S / 5:
            work()
            times += 1
        best = min(best, (time.perf_counter() - began) / times * 1e9)
    return best


if __name__ == "__main__":
    main()
