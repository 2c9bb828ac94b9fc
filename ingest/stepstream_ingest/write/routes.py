"""POST /v1/frames."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson
from aiohttp import web
from msgspec import Struct

from stepstream_ingest import bodies, telemetry
from stepstream_ingest.admission import Admission
from stepstream_ingest.errors import ApiError, DatabaseAway
from stepstream_ingest.openapi import describes
from stepstream_ingest.write.candidate import Candidate, Refusal, validate
from stepstream_ingest.write.queue import CommitQueue, Committed
from stepstream_schema import batch, limits, paths
from stepstream_schema.errors import FrameError

RETRY_FULL_S: Final = 1
RETRY_AWAY_S: Final = 2
RETRY_BEHIND_S: Final = 2


class RefusedFrame(Struct, kw_only=True, frozen=True):
    """A frame that will never be stored; its neighbours are."""

    index: int
    code: str
    message: str


class AheadFrame(Struct, kw_only=True, frozen=True):
    """A frame that came too far ahead of its writer's mark; send it again after those before it."""

    index: int
    mark: int


class Conflict(Struct, kw_only=True, frozen=True):
    """A param that has another value already."""

    run_id: str
    key: str
    stored: str
    refused: str


class Hidden(Struct, kw_only=True, frozen=True):
    """A run that was born in a deleted experiment: it is stored, and not shown until the experiment is restored."""

    run_id: str
    experiment_id: int
    experiment: str


class Fates(Struct, kw_only=True, frozen=True):
    """What became of each frame."""

    stored: int
    duplicates: int
    refused: list[RefusedFrame]
    ahead: list[AheadFrame]
    param_conflicts: list[Conflict]
    deleted_experiments: list[Hidden]


class FrameRoutes:
    """Admits, validates, submits and answers."""

    def __init__(
        self,
        queue: CommitQueue,
        admission: Admission,
        delay_s: Callable[[], float | None],
        turned_away: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue = queue
        self._admission = admission
        self._delay_s = delay_s
        self._turned_away = turned_away

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.router.add_post(paths.FRAMES, self.post)

    @describes(body=bytes, body_type=paths.MSGPACK, answer=Fates)
    async def post(self, request: web.Request) -> web.Response:
        """Store frames; the answer names the fate of each."""
        encodings = request.headers.getall("Content-Encoding", [])
        if any(encoding.strip().lower() != "identity" for encoding in encodings):
            # Admission counts bytes as they are sent; frames are compressed already.
            message = f"frames are sent as they are, and not with Content-Encoding {', '.join(encodings)[:100]!r}"
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)
        size = request.content_length
        if size is None or size > limits.MAX_REQUEST_BYTES:
            stated = "states no length" if size is None else f"has {size} bytes"
            raise ApiError(413, "TOO_LARGE", f"a request {stated} and may have {limits.MAX_REQUEST_BYTES}; send less")
        delay = self._delay_s()
        if delay is None:
            self._turn_away("compaction behind")
            message = "compaction is behind; nothing of this request is stored"
            raise ApiError(429, "COMPACTION_BEHIND", message, RETRY_BEHIND_S)
        if not self._admission.try_admit(size):
            self._turn_away("queue full")
            raise ApiError(429, "QUEUE_FULL", "commits are behind; nothing of this request is stored", RETRY_FULL_S)
        self._measure()
        try:
            await asyncio.sleep(delay)
            return await self._admitted(await bodies.read(request))
        finally:
            self._admission.release(size)
            self._measure()

    async def _admitted(self, body: bytes) -> web.Response:
        try:
            frames = batch.unpack(body)
        except FrameError as error:
            status = 413 if error.code == "too_large" else 400
            raise ApiError(status, error.code.upper(), error.message) from error
        del body
        received_at_us = time.time_ns() // 1000
        candidates: list[Candidate] = []
        places: list[int] = []
        refusals: list[Refusal] = []
        for index, data in enumerate(frames):
            candidate, refusal = validate(index, data, received_at_us)
            if candidate is not None and candidate.writer >= limits.FIRST_SERVED_WRITER:
                # Stored, it would be taken for points that count once.
                candidate, refusal = (
                    None,
                    Refusal(index=index, code="invalid", message="this writer is the server's own"),
                )
            if refusal is not None:
                refusals.append(refusal)
            if candidate is not None:
                candidates.append(candidate)
                places.append(index)
        frames.clear()
        try:
            committed = await self._queue.submit(candidates) if candidates else Committed((), ())
        except DatabaseAway as error:
            self._turn_away("database away")
            raise ApiError(503, "DATABASE_AWAY", f"{error}; nothing is lost, send again", RETRY_AWAY_S) from error
        return _answer(candidates, places, refusals, committed)

    def _turn_away(self, reason: str) -> None:
        telemetry.REQUESTS_TURNED_AWAY.labels(reason).inc()
        self._turned_away()

    def _measure(self) -> None:
        telemetry.QUEUE_BYTES.set(self._admission.bytes)
        telemetry.QUEUE_REQUESTS.set(self._admission.requests)


def _answer(
    candidates: Sequence[Candidate], places: Sequence[int], refusals: Sequence[Refusal], committed: Committed
) -> web.Response:
    fates = list(zip(places, candidates, committed.verdicts, committed.marks, strict=True))
    ahead = [{"index": index, "mark": mark} for index, _, verdict, mark in fates if verdict == "ahead"]
    early = {one["index"] for one in ahead}
    # Refused for good only once its number is consumed: before that it comes again, like any other frame.
    refusals = [refusal for refusal in refusals if refusal.index not in early]
    refused = {refusal.index for refusal in refusals}
    stored = [one for index, one, verdict, _ in fates if verdict == "new" and index not in refused]
    duplicates = sum(verdict == "duplicate" and index not in refused for index, _, verdict, _ in fates)
    _count(stored, duplicates, refusals, len(ahead))
    said: dict[str, Any] = {
        "stored": len(stored),
        "duplicates": duplicates,
        "refused": [asdict(refusal) for refusal in refusals],
        "ahead": ahead,
        "param_conflicts": [
            {"run_id": one.run_id, "key": one.key, "stored": one.stored, "refused": one.refused}
            for one in committed.conflicts
        ],
        "deleted_experiments": [asdict(one) for one in committed.hidden],
    }
    return web.Response(body=orjson.dumps(said), content_type="application/json")


def _count(stored: Sequence[Candidate], duplicates: int, refusals: Sequence[Refusal], ahead: int) -> None:
    telemetry.POINTS.inc(sum(one.points for one in stored))
    telemetry.BYTES.inc(sum(one.size for one in stored))
    telemetry.FRAMES.labels("stored").inc(len(stored))
    telemetry.FRAMES.labels("duplicate").inc(duplicates)
    telemetry.FRAMES.labels("ahead").inc(ahead)
    for refusal in refusals:
        telemetry.FRAMES.labels("refused").inc()
        telemetry.REFUSED.labels(refusal.code).inc()
