"""The background thread that carries frames from the outbox to the server, and may wait for hours."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final

from stepstream import sync
from stepstream.backoff import Backoff
from stepstream.delivery import Delivery, Pending, Request
from stepstream.errors import SpoolDamaged
from stepstream.notices import Notices
from stepstream.outbox import Outbox
from stepstream.settings import Settings
from stepstream.tombstone import tombstones
from stepstream.transport import Answer, Rejected, Transport, Unavailable
from stepstream_schema.attempt import Attempt

REJECTED_RETRY_S: Final = 30.0
"""A wrong token or address is mended by people; until then the frames stay in the spool."""


class Sender:
    """Law: a frame is settled only by an answer that names its fate; whatever else happens, it is sent again."""

    def __init__(
        self, *, settings: Settings, outbox: Outbox, notices: Notices, run_id: str, writer: int, adopt: bool
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._notices = notices
        self._run_id = run_id
        self._writer = writer
        self._adopt = adopt
        # Its own generator, seeded by the system: the user's random.seed() must not align the clients' retries.
        self._delivery = Delivery(Backoff(random.SystemRandom().uniform))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="stepstream-sender", daemon=True)
        self.points_refused = 0
        self.param_conflicts = 0
        self.points_adopted = 0

    def start(self) -> None:
        """Start the thread."""
        self._outbox.notify = self.notify
        self._thread.start()

    def notify(self) -> None:
        """There is something new in the outbox; callable from any thread."""
        loop, event = self._loop, self._event
        if loop is not None and event is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between: nobody is left to tell
                loop.call_soon_threadsafe(event.set)

    def hurry(self) -> None:
        """Somebody waits for the server: try at once rather than after the pause."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in between
                loop.call_soon_threadsafe(self._hurry)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; requests under way are cancelled, their frames stay unsettled."""
        self._stopping = True
        self.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _hurry(self) -> None:
        self._delivery.hurry()
        if self._event is not None:
            self._event.set()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 - a thread's last words; frames stay in the spool
            self._notices.once("sender", f"the sender ended: {error!r}; frames stay in {self._outbox.directory}")

    async def _main(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with Transport(self._settings.tracking_uri, self._settings.token) as transport:
            if self._adopt:
                self._spawn(self._adopt_orphans(transport))
            while not self._stopping:
                self._event.clear()
                for pending in self._outbox.arrivals():
                    self._delivery.add(pending)
                while (request := self._delivery.due(time.monotonic())) is not None:
                    self._spawn(self._send(transport, request))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._event.wait(), self._delivery.wait_s(time.monotonic()))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, transport: Transport, request: Request) -> None:
        try:
            frames = [data for pending in request.frames if (data := self._read(pending)) is not None]
            if len(frames) < len(request.frames):
                request = self._hand_over(request)
            answer = await transport.post(frames)
            self._note(request, answer)
            ahead = [index for index, _ in answer.ahead]
            self._outbox.settle(self._delivery.answered(request, ahead, time.monotonic()))
            if answer.ahead:
                await self._fill_gap(transport, request, answer)
            self._notices.over("away", f"{self._settings.tracking_uri} answers again; the spool is being delivered")
        except Unavailable as error:
            self._delivery.failed(request, time.monotonic(), error.retry_after_s)
            self._notices.once(
                "away",
                f"{self._settings.tracking_uri} cannot be reached ({error}); training goes on, and everything logged "
                f"is kept in {self._outbox.directory} until it can",
            )
        except Rejected as error:
            self._rejected(request, error)
        except BaseException:
            # Cancelled, or a defect: the frames are not lost, they go back to be sent again.
            self._delivery.failed(request, time.monotonic(), REJECTED_RETRY_S)
            raise
        finally:
            if self._event is not None:
                self._event.set()

    def _hand_over(self, request: Request) -> Request:
        """Settle frames whose segment another process has claimed: they are its to deliver, under their own numbers."""
        gone = [pending for pending in request.frames if self._read(pending) is None]
        self._outbox.settle(gone)
        self._notices.once("claimed", "another process took segments of this run's spool and delivers them itself")
        return self._delivery.without(request, gone)

    def _read(self, pending: Pending) -> bytes | None:
        """The frame; None when its segment is gone, which is not this writer's doing."""
        try:
            return self._outbox.read(pending)
        except FileNotFoundError:
            return None
        except (OSError, SpoolDamaged) as error:
            self.points_refused += pending.points
            self._notices.once(
                "spool read", f"frame {pending.seq} is gone from the spool ({error}); its points are lost"
            )
            # Its number must still be consumed, or the writer's mark would wait for it for ever.
            return next(tombstones(self._run_id, self._writer, Attempt(), pending.seq, pending.seq))

    def _rejected(self, request: Request, error: Rejected) -> None:
        if error.status != 413:
            self._delivery.failed(request, time.monotonic(), REJECTED_RETRY_S)
            self._notices.once(
                f"rejected {error.status}",
                f"{self._settings.tracking_uri} does not take the frames ({error}); they stay in "
                f"{self._outbox.directory}. Check STEPSTREAM_TRACKING_URI and STEPSTREAM_TOKEN.",
            )
            return
        alone = self._delivery.too_large(request)
        if alone is not None:
            self.points_refused += alone.points
            self._outbox.settle([alone])
            self._notices.once(
                "too large", f"a frame of {alone.size} bytes is too large for the server; its points are lost"
            )

    def _note(self, request: Request, answer: Answer) -> None:
        for index, code, message in answer.refused:
            self.points_refused += request.frames[index].points
            self._notices.once(f"refused {code}", f"the server refused a frame ({code}): {message}")
        self._outbox.points_acknowledged += sum(frame.points for frame in request.frames)
        self._outbox.points_acknowledged -= sum(request.frames[index].points for index, _ in answer.ahead)
        self._outbox.points_acknowledged -= sum(request.frames[index].points for index, _, _ in answer.refused)
        for conflict in answer.param_conflicts:
            self.param_conflicts += 1
            self._notices.once(
                f"param {conflict.get('key')}",
                f"param {conflict.get('key')!r} is {conflict.get('stored')!r} already and stays so; "
                f"{conflict.get('refused')!r} was not stored",
            )

    async def _fill_gap(self, transport: Transport, request: Request, answer: Answer) -> None:
        """Consume the numbers that this writer no longer has, so that its mark can move on."""
        mark = max(mark for _, mark in answer.ahead)
        lowest = self._outbox.lowest_seq()
        if lowest is not None and mark + 1 < lowest:
            gap = list(tombstones(self._run_id, self._writer, Attempt(), mark + 1, lowest - 1))
            for start in range(0, len(gap), 1024):
                await transport.post(gap[start : start + 1024])

    async def _adopt_orphans(self, transport: Transport) -> None:
        """Deliver what processes that died on this host left behind for the same server."""
        try:
            report = await sync.deliver_orphans(
                self._settings.spool_dir, transport, tracking_uri=self._settings.tracking_uri
            )
        except (OSError, Rejected) as error:
            self._notices.once("adopt", f"what earlier runs left in {self._settings.spool_dir} was not sent: {error}")
            return
        self.points_adopted = report.frames
        if report.frames:
            self._notices.once("adopted", f"delivered {report.frames} frames that earlier processes left in the spool")
