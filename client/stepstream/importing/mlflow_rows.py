"""Histories straight from a database of MLflow's: by its protocol, each metric of each run would be a question."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from stepstream.importing.values import Point

ROWS: Final = 50_000
"""Rows that are read at once."""


class MlflowRows:
    """Reads the table of metrics, in whatever database SQLAlchemy knows."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def points(self, run_id: str) -> Iterator[Point]:
        """Of a run, in an order that is the same every time."""
        with self._engine.connect() as connection:
            result = connection.execution_options(stream_results=True).execute(history(run_id))
            for rows in result.partitions(ROWS):
                for key, value, time_ms, step, is_nan in rows:
                    yield key, float("nan") if is_nan else float(value), time_ms, step

    def counts(self, run_ids: Sequence[str]) -> dict[str, int]:
        """How many points each of some runs has; those that have none are left out."""
        with self._engine.connect() as connection:
            return {run_id: int(number) for run_id, number in connection.execute(counts(run_ids))}


def history(run_id: str) -> Any:
    """The statement; its names are quoted as the database asks for it (`key` is a word of MySQL's)."""
    from sqlalchemy import select

    of = _metrics().c
    wanted = select(of.key, of.value, of.timestamp, of.step, of.is_nan).where(of.run_uuid == run_id)
    return wanted.order_by(of.key, of.timestamp, of.step, of.value)


def counts(run_ids: Sequence[str]) -> Any:
    """The statement."""
    from sqlalchemy import func, select

    of = _metrics().c
    return select(of.run_uuid, func.count()).where(of.run_uuid.in_(list(run_ids))).group_by(of.run_uuid)


def _metrics() -> Any:
    from sqlalchemy import column, table

    return table("metrics", *map(column, ("run_uuid", "key", "value", "timestamp", "step", "is_nan")))
