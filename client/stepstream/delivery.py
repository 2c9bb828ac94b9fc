"""Decides which frames travel in the next request, and what an answer means. Pure: takes the time, does no I/O."""

import heapq
import math
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
LARGER_AGAIN_S: Final = 600.0
"""After so long requests may be twice as large again as something before the server took them: it may take more now."""
GATHER_S: Final = 1.0
"""Between two requests while little is waiting: to client and server a request is as dear as the frames in it."""
GATHER_BYTES: Final = 2**18
"""So much is worth a request of its own."""


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
    What is logged after a pause is sent at once; a steady trickle travels together.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._fresh: deque[Pending] = deque()
        self._again: list[tuple[int, Pending]] = []
        self._later: list[tuple[float, int, Pending]] = []
        self._in_flight: set[Request] = set()
        self._not_before = 0.0
        # What the server asked for: nobody's hurry goes before it.
        self._told_until = 0.0
        self._request_bytes = MAX_REQUEST_BYTES
        self._larger_at = math.inf
        self._fresh_bytes = 0
        self._gather_until = 0.0

    def add(self, frame: Pending) -> None:
        """A newly sealed frame."""
        self._fresh.append(frame)
        self._fresh_bytes += frame.size

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not (self._fresh or self._again or self._later or self._in_flight)

    def due(self, now: float) -> Request | None:
        """The next request, if one may be sent now."""
        if now < self._not_before or self._is_full or self._gathers(now):
            return None
        while self._later and self._later[0][0] <= now:
            _, seq, frame = heapq.heappop(self._later)
            heapq.heappush(self._again, (seq, frame))
        if now >= self._larger_at:
            self._request_bytes = min(2 * self._request_bytes, MAX_REQUEST_BYTES)
            self._larger_at = now + LARGER_AGAIN_S if self._request_bytes < MAX_REQUEST_BYTES else math.inf
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
        if not self._fresh:
            # Else the rest of what came at once would wait for more.
            self._gather_until = now + GATHER_S
        return request

    def wait_s(self, now: float) -> float | None:
        """Seconds until `due` may have something new; None when only an event can change that."""
        if self._is_full:
            return None
        if now < self._not_before and self._peek():
            return self._not_before - now
        moments = [max(self._later[0][0], self._not_before)] if self._later else []
        if self._fresh and self._gathers(now):
            moments.append(self._gather_until)
        return max(0.0, min(moments) - now) if moments else None

    def apart(self, request: Request, numbers: Container[int]) -> tuple[Request, Request]:
        """The request without the frames of these numbers, and they as another one; both are in flight."""
        frames = self._landed(request)
        rest = Request(tuple(frame for frame in frames if frame.seq not in numbers))
        others = Request(tuple(frame for frame in frames if frame.seq in numbers))
        self._in_flight |= {one for one in (rest, others) if one.frames}
        return rest, others

    def postponed(self, request: Request, until: float) -> None:
        """These frames cannot be sent before `until`; no other frame waits for them."""
        for frame in self._landed(request):
            heapq.heappush(self._later, (until, frame.seq, frame))

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

    def failed(
        self, request: Request, now: float, told_s: float | None = None, *, least_s: float | None = None
    ) -> float:
        """Nothing is known of these frames: they are sent again, lowest first. Returns the pause in seconds.

        It is not shorter than `told_s`, the server's Retry-After, nor than `least_s`. What goes wrong after an answer
        sends nothing again.
        """
        for frame in self._landed(request):
            heapq.heappush(self._again, (frame.seq, frame))
        wait = self._backoff.failed(least_s if told_s is None else told_s)
        self._not_before = max(self._not_before, now + wait)
        if told_s is not None:
            self._told_until = max(self._told_until, now + wait)
        return wait

    def too_large(self, request: Request, until: float) -> Pending | None:
        """The way to the server takes no body of this size: halve it. A frame that alone is too large waits `until`
        the way may have been mended, and is returned.
        """
        if len(request.frames) == 1:
            self.postponed(request, until)
            return request.frames[0]
        self._request_bytes = max(1, sum(frame.size for frame in request.frames) // 2)
        self._larger_at = until + LARGER_AGAIN_S
        for frame in self._landed(request):
            heapq.heappush(self._again, (frame.seq, frame))
        return None

    def hurry(self) -> None:
        """Somebody waits for the end: forget pauses of our own, one more try costs little; the server's are kept."""
        self._not_before = min(self._not_before, self._told_until)
        self._gather_until = 0.0
        self._later = [(0.0, seq, frame) for _, seq, frame in sorted(self._later, key=lambda entry: entry[1])]

    def _landed(self, request: Request) -> tuple[Pending, ...]:
        """Its frames, which are no longer in flight; none where they were not."""
        if request not in self._in_flight:
            return ()
        self._in_flight.discard(request)
        return request.frames

    @property
    def _is_full(self) -> bool:
        """Only an answer lets another request go."""
        return len(self._in_flight) >= (1 if self._backoff.failures else MAX_IN_FLIGHT)

    def _gathers(self, now: float) -> bool:
        """Only new frames wait, and more may join them."""
        due_again = self._again or (self._later and self._later[0][0] <= now)
        return now < self._gather_until and self._fresh_bytes < GATHER_BYTES and not due_again

    def _peek(self) -> Pending | None:
        if self._again:
            return self._again[0][1]
        return self._fresh[0] if self._fresh else None

    def _pop(self) -> Pending:
        if self._again:
            return heapq.heappop(self._again)[1]
        frame = self._fresh.popleft()
        self._fresh_bytes -= frame.size
        return frame
