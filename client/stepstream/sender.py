"""The background thread that carries frames from the outbox to the server, and may wait for hours."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from stepstream import sync
from stepstream.backoff import Backoff
from stepstream.delivery import MAX_REQUEST_FRAMES, Delivery, Pending, Request
from stepstream.errors import SpoolDamaged
from stepstream.notices import Notices
from stepstream.outbox import Outbox
from stepstream.settings import Settings
from stepstream.tombstone import tombstones
from stepstream.transport import Answer, BlockingLoop, Rejected, Transport, Unavailable
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt

REJECTED_RETRY_S: Final = 30.0
"""A wrong token or address is mended by people; until then the frames stay in the spool."""
BUSY_S: Final = 10.0
"""A server that asks for a pause is said to be away after so long: under load it asks now and then, for a second."""
READ_RETRY_S: Final = 1.0
"""A spool that cannot be read now, for want of descriptors or of its file server, can be soon."""
GIVE_UP_S: Final = 60.0
"""A frame that the spool has not shown for this long is lost: a directory on NFS may be as old as a minute, and another
process may have renamed the segment meanwhile to deliver it."""


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
        self._is_filling = False
        self._away_since: float | None = None
        # Its own generator, seeded by the system: the user's random.seed() must not align the clients' retries.
        self._delivery = Delivery(Backoff(random.SystemRandom().uniform))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._stopping = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._missed: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, name="stepstream-sender", daemon=True)
        self.points_refused = 0
        self.param_conflicts = 0

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

    def stop(self, timeout_s: float) -> None:
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
            with asyncio.Runner(loop_factory=BlockingLoop) as runner:
                runner.run(self._main())
        except Exception as error:  # noqa: BLE001 - a thread's last words; frames stay in the spool
            self._notices.once("sender", f"the sender ended: {error!r}; frames stay in {self._outbox.directory}")
        finally:
            self._outbox.stop_reading()

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
                    self._send(transport, request)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._event.wait(), self._delivery.wait_s(time.monotonic()))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, transport: Transport, request: Request) -> None:
        """Each frame is on its way when this returns, or put off. Read once: what is sent is what will be settled."""
        now = time.monotonic()
        frames, unread = self._read(request.frames)
        lost = {seq for seq in unread if seq in self._missed and now - self._missed[seq] >= GIVE_UP_S}
        request, late = self._delivery.apart(request, unread - lost)
        self._delivery.postponed(late, now + READ_RETRY_S)
        request, gone = self._delivery.apart(request, lost)
        if frames:
            self._spawn(self._attempt(request, self._post(transport, request, frames)))
        if gone.frames:
            self._spawn(self._bury(transport, gone))

    def _read(self, wanted: Iterable[Pending]) -> tuple[list[bytes], set[int]]:
        """The frames that the spool gives, and the numbers of the others."""
        frames: list[bytes] = []
        unread: set[int] = set()
        trouble: dict[int, OSError] = {}
        for pending in wanted:
            segment = 0 if isinstance(pending.place, bytes) else pending.place.number
            try:
                if segment in trouble:
                    # Its other frames have the same to say, and a disk may take long to say it.
                    raise trouble[segment]
                frames.append(self._outbox.read(pending))
                self._missed.pop(pending.seq, None)
            except (OSError, SpoolDamaged) as error:
                unread.add(pending.seq)
                if isinstance(error, OSError):
                    trouble[segment] = error
                if isinstance(error, FileNotFoundError | SpoolDamaged):
                    self._missed.setdefault(pending.seq, time.monotonic())
                else:
                    self._missed.pop(pending.seq, None)
                self._notices.once(
                    "spool read", f"frame {pending.seq} cannot be read from the spool ({error!r}); it is tried again"
                )
        return frames, unread

    async def _attempt(self, request: Request, work: Coroutine[Any, Any, None]) -> bool:
        """Do it; what goes wrong gives the frames back to be sent again. Whether nothing did."""
        try:
            await work
        except Unavailable as error:
            now = time.monotonic()
            self._delivery.failed(request, now, error.retry_after_s)
            self._away_since = now if self._away_since is None else self._away_since
            if error.retry_after_s is None or now - self._away_since >= BUSY_S:
                self._notices.once(
                    "away",
                    f"{self._settings.tracking_uri} cannot be reached ({error}); training goes on, and everything "
                    f"logged is kept in {self._outbox.directory} until it can",
                )
            return False
        except Rejected as error:
            self._rejected(request, error)
            return False
        except Exception as error:  # noqa: BLE001 - a defect, of ours or below us, that must not be kept a secret
            self._delivery.failed(request, time.monotonic(), least_s=REJECTED_RETRY_S)
            self._notices.once("defect", f"frames could not be sent ({error!r}); they are tried again")
            return False
        except BaseException:
            self._delivery.failed(request, time.monotonic())
            raise
        finally:
            if self._event is not None:
                self._event.set()
        self._away_since = None
        self._notices.over("away", f"{self._settings.tracking_uri} answers again; the spool is being delivered")
        return True

    async def _post(self, transport: Transport, request: Request, frames: list[bytes]) -> None:
        answer = await transport.post(frames)
        self._note(request, answer)
        ahead = [index for index, _ in answer.ahead]
        self._outbox.settle(self._delivery.answered(request, ahead, time.monotonic()))
        await self._fill_gap(transport, answer)

    async def _bury(self, transport: Transport, lost: Request) -> None:
        """Consume the numbers of frames that the spool has lost, or their writer's mark would wait for ever."""
        while lost.frames:
            one, lost = self._delivery.apart(lost, {pending.seq for pending in lost.frames[1:]})
            done = False
            try:
                done = await self._attempt(one, self._post_tombstone(transport, one))
            finally:
                if not done:
                    self._delivery.postponed(lost, time.monotonic() + READ_RETRY_S)
            if not done:
                return

    async def _post_tombstone(self, transport: Transport, one: Request) -> None:
        """One at a time: only so does the answer tell of this number whether somebody had delivered it."""
        (pending,) = one.frames
        answer = await transport.post(list(tombstones(self._run_id, self._writer, Attempt(), pending.seq, pending.seq)))
        settled = self._delivery.answered(one, [index for index, _ in answer.ahead], time.monotonic())
        if settled and (answer.stored or answer.refused):
            self._outbox.lose(settled)
            self._notices.once(
                "lost",
                f"frame {pending.seq} is gone from {self._outbox.directory}; its {pending.points} points are lost",
            )
        elif settled:
            self._outbox.points_acknowledged += pending.points
            self._outbox.settle(settled)
            self._notices.once("claimed", "another process took segments of this run's spool and has delivered them")
        for frame in settled:
            self._missed.pop(frame.seq, None)
        await self._fill_gap(transport, answer)

    def _rejected(self, request: Request, error: Rejected) -> None:
        if error.status != 413:
            self._delivery.failed(request, time.monotonic(), least_s=REJECTED_RETRY_S)
            self._notices.once(
                f"rejected {error.status}",
                f"{self._settings.tracking_uri} does not take the frames ({error}); they stay in "
                f"{self._outbox.directory}. Check STEPSTREAM_TRACKING_URI and STEPSTREAM_TOKEN.",
            )
            return
        # Our server takes every frame: this was said before it, by a proxy whose bound can be raised.
        alone = self._delivery.too_large(request, time.monotonic() + REJECTED_RETRY_S)
        if alone is not None:
            self._notices.once(
                "too large",
                f"a frame of {alone.size} bytes is too large for {self._settings.tracking_uri}, or for a proxy before "
                f"it ({error}); it stays in {self._outbox.directory} and is tried again",
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
        for sentence in answer.hidden:
            self._notices.once(sentence, sentence)

    async def _fill_gap(self, transport: Transport, answer: Answer) -> None:
        """Consume the numbers that this writer no longer has, so that its mark can move on.

        A window of them: what lies beyond is told by the next answer. Hours with a full spool leave 100,000s.
        """
        if not answer.ahead or self._is_filling:
            return
        lowest = self._outbox.lowest_seq()
        if lowest is None:
            return
        first = max(mark for _, mark in answer.ahead) + 1
        end = min(lowest, first + limits.CURSOR_WINDOW_FRAMES // 2)
        self._is_filling = True
        try:
            for start in range(first, end, MAX_REQUEST_FRAMES):
                last = min(start + MAX_REQUEST_FRAMES, end) - 1
                await transport.post(list(tombstones(self._run_id, self._writer, Attempt(), start, last)))
        finally:
            self._is_filling = False

    async def _adopt_orphans(self, transport: Transport) -> None:
        """Deliver what processes that died on this host left behind for the same server."""
        try:
            report = await sync.deliver_orphans(
                self._settings.spool_dir, transport, tracking_uri=self._settings.tracking_uri
            )
        except Exception as error:  # noqa: BLE001 - said; this process's own frames are another matter
            self._notices.once("adopt", f"what earlier runs left in {self._settings.spool_dir} was not sent: {error}")
            return
        for sentence in report.hidden:
            self._notices.once(sentence, sentence)
        if report.frames:
            self._notices.once("adopted", f"delivered {report.frames} frames that earlier processes left in the spool")
        if report.problems or report.refused:
            more = f"; and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
            what = f"{report.problems[0]}{more}" if report.problems else f"the server refused {report.refused} frames"
            self._notices.once("adopt", f"not all that earlier processes left could be delivered: {what}")
