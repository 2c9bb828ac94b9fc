"""What is asked and answered about metrics, as the OpenAPI document shows it.

Answers are columns, written as JSON, as msgpack or as Arrow by `formats.py`; these types say their JSON form.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from stepstream_ingest.openapi import Int64, RunId

Number = float | Literal["NaN", "Infinity", "-Infinity"]
Numbers = list[Number]
Rank = Annotated[str, Meta(description="one rank, or `none` for points without; left out, the lowest at each step")]
AttemptText = Annotated[str, Meta(description="scheduler.elastic.resume, such as 0.1.0; left out, the newest")]


class Series(Struct, kw_only=True, frozen=True):
    """One series of a run with its summary."""

    key: str
    rank: int | None
    attempt: tuple[int, int, int]
    count: int
    last: Number
    last_step: int
    last_time_ms: int
    min: Number
    max: Number


class SeriesList(Struct, kw_only=True, frozen=True):
    """Every series of a run."""

    series: list[Series]


class HistoryQuery(Struct, kw_only=True, frozen=True):
    """One metric between two steps: in full, as so many buckets, or as at most so many of its points."""

    key: str
    rank: Rank | None = None
    attempt: AttemptText | None = None
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    buckets: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    points: Annotated[int, Meta(ge=1, le=40_000)] | None = None


class Columns(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Points (steps, times_ms, values), or buckets (all others), as columns of equal length."""

    key: str
    count: int
    run_id: str | None = None
    rank: str | int | None = None
    attempt: str | None = None
    steps: list[int] = []
    times_ms: list[int] = []
    values: Numbers = []
    first_step: list[int] = []
    last_step: list[int] = []
    first_time_ms: list[int] = []
    last_time_ms: list[int] = []
    min_step: list[int] = []
    min_time_ms: list[int] = []
    max_step: list[int] = []
    max_time_ms: list[int] = []
    counts: list[int] = []
    nans: list[int] = []
    pos_infs: list[int] = []
    neg_infs: list[int] = []
    first: Numbers = []
    last: Numbers = []
    min: Numbers = []
    max: Numbers = []
    sum: Numbers = []
    mean: Numbers = []


class WantedSeries(Struct, kw_only=True, frozen=True):
    """One metric of one run."""

    run_id: RunId
    key: str
    rank: str | int | None = None
    attempt: AttemptText | None = None


class HistoryQuestion(Struct, kw_only=True, frozen=True):
    """Metrics of several runs on one axis of steps."""

    series: Annotated[list[WantedSeries], Meta(min_length=1, max_length=1000)]
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    buckets: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    points: Annotated[int, Meta(ge=1, le=40_000)] | None = None


class HistoryAnswer(Struct, kw_only=True, frozen=True):
    """One answer a series, in order."""

    series: list[Columns]


class RanksQuery(Struct, kw_only=True, frozen=True):
    """One metric of a run, over its ranks."""

    key: str
    attempt: AttemptText | None = None
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    buckets: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class RanksAnswer(Struct, kw_only=True, frozen=True):
    """By bucket: over the ranks' means; `outlier_rank` is the one that strays most, -1 where there are too few."""

    key: str
    ranks_seen: list[int | None]
    first_step: list[int]
    last_step: list[int]
    ranks: list[int]
    mean: Numbers
    min: Numbers
    max: Numbers
    percentiles: dict[str, Numbers]
    outlier_rank: list[int]
    outlier_score: Numbers
