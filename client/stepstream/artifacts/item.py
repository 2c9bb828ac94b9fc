"""One file on its way into the store."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from stepstream.artifacts.body import Body, FileBody, MemoryBody
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.plan import PartRange
from stepstream.artifacts.source import BytesSource, FileSource, Hashed, StreamSource
from stepstream_schema import limits

REWRITTEN: Final = "{path} was written to after it was logged; what is stored is its later state, whole"
"""Said of what was not kept in a copy."""


@dataclass(eq=False, slots=True, kw_only=True)
class Item:
    """One file on its way."""

    path: str
    source: FileSource | StreamSource | BytesSource
    content_type: str
    logged_at_ms: int
    handle: Upload
    hashed: Hashed | None = None
    sent: dict[str, Any] | None = None
    """What completes its upload, once every byte is there: asking again for that must not send anything again."""
    tries: int = 0
    """How often it came back by its own fault."""
    counted: bool = False
    furthest: dict[int, int] = field(default_factory=dict)
    """Bytes of each part that have been sent, at most: sending them again is no progress."""
    checked: set[int] = field(default_factory=set)
    """Parts that were read for what the store checks: reading them again is none either."""
    waits_for: Any = None
    """Kept alive and told when the file is settled: the note in the spool."""

    def progress(self, part: int) -> Callable[[int], None]:
        """What counts the bytes of one transfer."""
        at = 0

        def moved(count: int) -> None:
            nonlocal at
            at += count
            self.handle.bytes_sent += count
            self.handle.moved += max(0, at - self.furthest.get(part, 0))
            self.furthest[part] = max(at, self.furthest.get(part, 0))

        return moved

    def announced(self) -> dict[str, Any]:
        """What the server is told of it first."""
        said: dict[str, Any] = {
            "path": self.path,
            "content_type": self.content_type,
            "logged_at_ms": self.logged_at_ms,
        }
        if self.hashed is None:
            return said
        return said | {"size": self.hashed.size, "sha256": self.hashed.sha256, "md5": self.hashed.md5}

    @property
    def was_rewritten(self) -> bool:
        """Whether what was sent is a later state than the one that was logged."""
        return isinstance(self.source, FileSource) and self.source.was_rewritten

    @property
    def size(self) -> int:
        """Bytes, once it is hashed."""
        assert self.hashed is not None
        return self.hashed.size

    @property
    def is_whole(self) -> bool:
        """Whether it is sent in one request."""
        return self.size <= limits.SINGLE_PUT_BYTES

    def body(self, part: PartRange) -> Body:
        """What is sent of a part; not of a stream."""
        if isinstance(self.source, FileSource):
            return FileBody(self.source, part.start, part.size, self.progress(part.number))
        assert isinstance(self.source, BytesSource)
        return MemoryBody(self.source.body, self.progress(part.number))
