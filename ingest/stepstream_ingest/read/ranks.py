"""One metric over all ranks. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stepstream_ingest.read.view import Axis
from stepstream_schema.buckets import Buckets
from stepstream_schema.columns import Float64s, Int64s

PERCENTILES: Final = (5, 25, 50, 75, 95)
MAD_TO_SIGMA: Final = 1.4826
"""Median absolute deviation of a normal distribution times this is its standard deviation (Rousseeuw & Croux 1993)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverRanks:
    """Columns of equal length b: each bucket of steps that any rank has."""

    first_step: Int64s
    last_step: Int64s
    ranks: Int64s
    """How many ranks have a finite value there."""
    mean: Float64s
    """Of the ranks' means in the bucket; each rank counts the same."""
    min: Float64s
    """The smallest value of any rank."""
    max: Float64s
    percentiles: dict[str, Float64s]
    """Of the ranks' means: p5, p25, p50, p75, p95."""
    outlier_rank: Int64s
    """The rank whose mean is farthest from the median of the ranks; -1 where there are fewer than three."""
    outlier_score: Float64s
    """How far, in robust standard deviations; infinite where all others agree, 0 where all do."""


def over_ranks(axis: Axis, lines: Sequence[tuple[int, Buckets]]) -> OverRanks:
    """The aggregates of (rank, its buckets on the axis)."""
    shape = (len(lines), axis.buckets)
    means, lows, highs = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    first = np.full(axis.buckets, np.iinfo(np.int64).max)
    last = np.full(axis.buckets, np.iinfo(np.int64).min)
    for line, (_, buckets) in enumerate(lines):
        places = axis.places(np.ascontiguousarray(buckets.ints[0]))
        means[line, places] = buckets.means
        lows[line, places], highs[line, places] = buckets.floats[2], buckets.floats[3]
        np.minimum.at(first, places, buckets.ints[0])
        np.maximum.at(last, places, buckets.ints[2])
    there = first <= last
    means, lows, highs = means[:, there], lows[:, there], highs[:, there]
    counts = np.sum(np.isfinite(means), axis=0)
    outlier, score = _outliers(np.array([rank for rank, _ in lines], np.int64), means, counts)
    return OverRanks(
        first_step=first[there],
        last_step=last[there],
        ranks=counts,
        mean=np.divide(np.nansum(means, axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0),
        min=np.fmin.reduce(lows, axis=0) if len(lines) else np.empty(0),
        max=np.fmax.reduce(highs, axis=0) if len(lines) else np.empty(0),
        percentiles={f"p{percent}": _percentile(means, counts, percent) for percent in PERCENTILES},
        outlier_rank=outlier,
        outlier_score=score,
    )


def _percentile(means: Float64s, counts: Int64s, percent: int) -> Float64s:
    result = np.full(means.shape[1], np.nan)
    if (counts > 0).any():
        result[counts > 0] = np.nanpercentile(means[:, counts > 0], percent, axis=0)
    return result


def _outliers(ranks: Int64s, means: Float64s, counts: Int64s) -> tuple[Int64s, Float64s]:
    outlier = np.full(len(counts), -1)
    score = np.full(len(counts), np.nan)
    enough = counts >= 3
    if enough.any():
        chosen = means[:, enough]
        distance = np.abs(chosen - np.nanmedian(chosen, axis=0))
        farthest = np.nanargmax(distance, axis=0)
        far = np.take_along_axis(distance, farthest[None], axis=0)[0]
        sigma = MAD_TO_SIGMA * np.nanmedian(distance, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            score[enough] = np.where(far == 0, 0.0, far / sigma)
        outlier[enough] = ranks[farthest]
    return outlier, score
