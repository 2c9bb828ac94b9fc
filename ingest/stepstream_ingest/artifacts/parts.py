"""Which parts of an upload are still missing. Pure."""

from collections.abc import Sequence

from stepstream_ingest.artifacts.stores.store import Part


def gaps(parts: Sequence[Part], size: int | None, part_bytes: int, *counts: int) -> str | None:
    """What keeps these parts from being one file, in words; None when they are whole.

    Parts are numbered from 1. With a known size all but the last have `part_bytes`. `counts` is what was said of how
    many there are; without it, and without a size, a part that is missing at the end cannot be told.
    """
    if not parts:
        return "no part has arrived"
    numbers = [part.number for part in parts]
    last = -(-size // part_bytes) if size else max(counts, default=numbers[-1])
    missing = sorted(set(range(1, last + 1)).difference(numbers))
    if missing:
        shown = ", ".join(map(str, missing[:10]))
        return f"{len(missing)} of {last} parts have not arrived: {shown}{' ...' if len(missing) > 10 else ''}"
    if numbers[-1] > last:
        return f"part {numbers[-1]} lies beyond the end, which is part {last}"
    if min(counts, default=last) < last:
        return f"the file has {last} parts, and {min(counts)} were said to have been sent"
    if size is None:
        return None
    wrong = next((part for part in parts if part.size != min(part_bytes, size - (part.number - 1) * part_bytes)), None)
    return f"part {wrong.number} has {wrong.size} bytes" if wrong else None
