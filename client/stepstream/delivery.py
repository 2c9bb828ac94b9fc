"""Decides which frames travel in the next request, and what an answer means. Pure: takes the time, does no I/O."""

import heapq
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

from stepstream.backoff import Backoff
from stepstream.spool.writer import Location

MAX_IN_FLIGHT: Final = 4
"""Requests under way: enough to keep a group commit busy while the next one is read."""
MAX_REQUEST_FRAMES: Final = 256
MAX_REQUEST_BYTES: Final = 2 * 2**20
"""Several full frames; far below the server's limit, so that an ordinary proxy lets it pass."""
AHEAD_WAIT_S: Final = 0.5
"""Pause before a frame is sent again that came too far ahead of its writer's mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A sealed frame that the server has not acknowledged."""

    seq: int
    points: int
    size: int
    """Encoded bytes."""
    place: Location | bytes
    """Where it lies: in the spool, or in memory when the spool refused it."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Frames that travel together."""

    frames: tuple[Pending, ...]


class Delivery:
    """Law: every frame added is in exactly one of waiting, in flight or settled; a settled frame never comes back.

    While the server is away one request at a time probes it, so that 512 clients coming back do not double their load.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._fresh: deque[Pending] = deque()
        self._again: list[tuple[int, Pending]] = []
        self._in_flight: set[Request] = set()
        self._not_before = 0.0
        self._request_bytes = MAX_REQUEST_BYTES

    def add(self, frame: Pending) -> None:
        """A newly sealed frame."""
        self._fresh.append(frame)

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not (self._fresh or self._again or self._in_flight)

    def due(self, now: float) -> Request | None:
        """The next request, if one may be sent now."""
        width = 1 if self._backoff.failures else MAX_IN_FLIGHT
        if now < self._not_before or len(self._in_flight) >= width:
            return None
        frames: list[Pending] = []
        size = 0
        while (head := self._peek()) and len(frames) < MAX_REQUEST_FRAMES:
            if frames and size + head.size > self._request_bytes:
                break
            frames.append(self._pop())
            size += head.size
        if not frames:
            return None
        request = Request(tuple(frames))
        self._in_flight.add(request)
        return request

    def wait_s(self, now: float) -> float | None:
        """Seconds until `due` may have something new; None when only an event can change that."""
        if now < self._not_before and self._peek():
            return self._not_before - now
        return None

    def without(self, request: Request, gone: Container[Pending]) -> Request:
        """The same request without frames that are no longer ours to send."""
        self._in_flight.discard(request)
        rest = Request(tuple(frame for frame in request.frames if frame not in gone))
        self._in_flight.add(rest)
        return rest

    def answered(self, request: Request, ahead: Iterable[int], now: float) -> list[Pending]:
        """The server answered: frames that are settled, for good. `ahead` are indices to be sent again."""
        self._in_flight.discard(request)
        self._backoff.succeeded()
        indices = frozenset(ahead)
        for index in indices:
            heapq.heappush(self._again, (request.frames[index].seq, request.frames[index]))
        if indices:
            self._not_before = max(self._not_before, now + AHEAD_WAIT_S)
        return [frame for index, frame in enumerate(request.frames) if index not in indices]

    def failed(self, request: Request, now: float, retry_after_s: float | None = None) -> float:
        """Nothing is known of these frames: they are sent again, lowest first. Returns the pause in seconds."""
        self._in_flight.discard(request)
        for frame in request.frames:
            heapq.heappush(self._again, (frame.seq, frame))
        wait = self._backoff.failed(retry_after_s)
        self._not_before = max(self._not_before, now + wait)
        return wait

    def too_large(self, request: Request) -> Pending | None:
        """The way to the server takes no body of this size: halve it. Returns the frame that alone is too large."""
        self._in_flight.discard(request)
        if len(request.frames) == 1:
            return request.frames[0]
        self._request_bytes = max(1, sum(frame.size for frame in request.frames) // 2)
        for frame in request.frames:
            heapq.heappush(self._again, (frame.seq, frame))
        return None

    def hurry(self) -> None:
        """Forget the pause: somebody waits for the end, and one more try costs little."""
        self._not_before = 0.0

    def _peek(self) -> Pending | None:
        if self._again:
            return self._again[0][1]
        return self._fresh[0] if self._fresh else None

    def _pop(self) -> Pending:
        return heapq.heappop(self._again)[1] if self._again else self._fresh.popleft()
