"""Reading: from frames and chunks to a history in full, to buckets for a chart, to aggregates over ranks.

history (what is fetched) -> layers (what of it is seen) -> view (buckets or points) -> ranks, formats, routes.
"""
