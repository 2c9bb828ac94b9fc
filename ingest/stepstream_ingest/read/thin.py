"""Fewer points that look the same. Pure.

Each bucket of neighbouring points keeps its first, last, smallest and largest (M4: Jugel et al., "M4: A
Visualization-Oriented Time Series Data Aggregation", VLDB 2014), so that a spike of one step is seen at every zoom.
"""

from typing import Final

import numpy as np

from stepstream_ingest.read.points import Points

POINTS_PER_BUCKET: Final = 4


def thin(points: Points, most: int) -> Points:
    """At most `most` points, but four at least: first, last, minimum and maximum of equal shares.

    Law: the first and the last point, a smallest and a largest value are kept, whatever NaN stands between them; every
    kept point is a real one, in order.
    """
    if len(points) <= most:
        return points
    buckets = max(1, most // POINTS_PER_BUCKET)
    edges = np.linspace(0, len(points), buckets + 1).astype(np.intp)
    low = np.where(np.isnan(points.values), np.inf, points.values)
    high = np.where(np.isnan(points.values), -np.inf, points.values)
    kept = {0, len(points) - 1}
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        kept |= {start, end - 1, start + int(low[start:end].argmin()), start + int(high[start:end].argmax())}
    return points.take(np.array(sorted(kept), np.intp))
