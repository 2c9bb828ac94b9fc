"""Compaction: frames (level 0) become chunks of series (level 1).

backlog (what is due) -> gather (frames to blocks of series) -> chunk_rows (blocks to rows) -> compactor (the
transaction) -> tidy (small and overlapping chunks made one) -> loop (when, and how often).
"""
