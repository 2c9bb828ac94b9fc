"""One writer of a run: what it takes in, and the threads that frame, spool and send it."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from stepstream import lifecycle
from stepstream.intake import Intake
from stepstream.notices import Notices
from stepstream.reentrant import Event
from stepstream.report import Lag, Stats
from stepstream.settings import Settings
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt
from stepstream_schema.run_names import run_name as run_name_of

if TYPE_CHECKING:
    from stepstream.outbox import Outbox
    from stepstream.pipeline import Pipeline
    from stepstream.sender import Sender

LOAD_AGAIN_S: Final = 0.2
"""Before what could not be imported is tried once more."""

Describe = Callable[[Mapping[str, str]], None]


class Writer:
    """Law: once it is closing no thread is started, however late its modules are loaded.

    It is asleep in a forked child, which may have nothing to say: its threads start with what it takes in first.
    """

    def __init__(
        self,
        *,
        run_id: str,
        run_name: str | None,
        rank: int | None,
        attempt: Attempt,
        start_time_ms: int,
        settings: Settings,
        notices: Notices,
        adopts: bool,
        describe: Describe | None = None,
        is_asleep: bool = False,
    ) -> None:
        """`adopts`: deliver, too, what processes that are gone have left in the spool. `describe` is told what runs."""
        # From the system, not from `random`: the user's seed and fork() must not make two writers one.
        self.number = int.from_bytes(os.urandom(8), "big") % limits.FIRST_SERVED_WRITER or 1
        self._run_id, self._rank, self._attempt = run_id, rank, attempt
        self._start_time_ms = start_time_ms
        self._settings, self._notices = settings, notices
        self._adopts, self._describe = adopts, describe
        self._every_call = settings.spool_interval_s == 0
        self.is_asleep = is_asleep
        self.intake = Intake(run_id=run_id, settings=settings, notices=notices, wake=self._wake, pushed=self._pushed)
        self.run_name = self.intake.name(run_name) if run_name else run_name_of(run_id)
        self.loaded = Event()
        """Everything is imported."""
        self.described = Event()
        """What runs was said, or nobody asked."""
        self._ready = Event()
        # Reentrant: a signal handler may end the run while this very thread does.
        self._gate = threading.RLock()
        self._waking = threading.RLock()
        """Held for an instant, while no thread is started: the gate may be held for longer."""
        self._closing = False
        self._launcher: int | None = None
        """The thread that wakes it now."""
        self._opener: int | None = None
        """The thread that opens it, of which there is one."""
        self._pipeline: Pipeline | None = None
        self._sender: Sender | None = None

    def launch(self) -> None:
        """Start what empties the buffer; the calling thread waits for none of it."""
        if not self._every_call:
            self.intake.buffer.allow_fast()
        lifecycle.loading(self.loaded)
        try:
            threading.Thread(target=self._open, name="stepstream-open", daemon=True).start()
        except RuntimeError as error:
            # The process may have no more threads. Nobody must wait for this one; what is logged is lost, and counted.
            self._could_not_open(error)
            self._let_go()
        self.is_asleep = False

    def _open(self) -> None:
        """Load the heavy modules and start the threads, off the calling thread."""
        with self._gate:
            if self._opener is not None:
                return
            self._opener = threading.get_ident()
        # From here on a fork has to wait.
        self.is_asleep = False
        try:
            if not self._start_sealing() or not self._start_sending():
                return
            # What sends files, too, of every run: where the first of them loads it, a signal handler that logs another
            # in the middle of that finds half a module. Where it fails, whoever logs a file is told.
            with contextlib.suppress(ImportError, KeyError):
                from stepstream.artifacts import uploader  # noqa: F401
            from stepstream import code_version

            # Everything is imported: from here on a fork need not wait, however long git may take.
            self.loaded.set()
            if self._describe is not None:
                tags = code_version.tags()
                if not self.intake.ending:
                    self._describe(tags)
        except Exception as error:  # noqa: BLE001 - said, and the training goes on
            self._could_not_open(error)
        finally:
            self._let_go()

    def _start_sealing(self) -> bool:
        """Whether it did: not of a writer that is closing."""
        from stepstream.pipeline import Pipeline, WriterIdentity

        identity = WriterIdentity(
            run_id=self._run_id,
            writer=self.number,
            rank=self._rank,
            attempt=self._attempt,
            experiment=self._settings.experiment,
            run_name=self.run_name,
            # Not from the system's directory of users: where that is slow, the spool would wait for it.
            user=self.intake.name(os.environ.get("USER") or os.environ.get("LOGNAME") or ""),
            start_time_ms=self._start_time_ms,
        )
        pipeline = Pipeline(
            identity=identity, settings=self._settings, buffer=self.intake.buffer, notices=self._notices
        )
        with self._gate:
            if self._closing:
                return False
            pipeline.sealer.start()
            self._pipeline = pipeline
        self._ready.set()
        return True

    def _start_sending(self) -> bool:
        """The same. The client of HTTP is loaded last: the spool must not wait for it."""
        assert self._pipeline is not None
        try:
            from stepstream.sender import Sender
        except (ImportError, KeyError):
            # Where another thread loads a module of its package first, each waits for the other, and Python lets both
            # fail. The other is through with it now.
            time.sleep(LOAD_AGAIN_S)
            from stepstream.sender import Sender

        sender = Sender(
            settings=self._settings,
            outbox=self._pipeline.outbox,
            notices=self._notices,
            run_id=self._run_id,
            writer=self.number,
            adopt=self._adopts,
        )
        with self._gate:
            if self._closing:
                return False
            sender.start()
            self._sender = sender
        return True

    def _could_not_open(self, error: Exception) -> None:
        what = "nothing will be stored"
        if self._pipeline is not None:
            place = self._settings.spool_dir
            what = f"what is logged stays in {place}. Deliver it with: stepstream sync {place}"
        self._notices.once("open", f"the tracker could not start ({error!r}), and {what}")

    def _let_go(self) -> None:
        """Nobody waits for it any more, whatever has become of it."""
        self._ready.set()
        self.loaded.set()
        self.described.set()

    def wait_until_loaded(self) -> None:
        """Modules that are being imported, and nothing else: of a writer that is asleep none are."""
        if not self.is_asleep:
            self.loaded.wait(lifecycle.LOAD_TIMEOUT_S)

    @property
    def is_closing(self) -> bool:
        """Nothing more is sent."""
        return self._closing

    @property
    def outbox(self) -> "Outbox | None":
        """What was framed; none before the modules are loaded, and where they could not be."""
        return self._pipeline.outbox if self._pipeline is not None else None

    @property
    def has_said_anything(self) -> bool:
        """Whether the server will know the run."""
        return self.outbox is not None and self.outbox.frames_sealed > 0

    @property
    def has_lost(self) -> bool:
        """Whether points were lost for want of room, or with the spool."""
        outbox = self.outbox
        frames = outbox.frames_dropped + outbox.frames_lost if outbox is not None else 0
        return bool(frames or self.stats(is_over=False).points_dropped)

    def lag(self) -> Lag:
        """What was taken in and is not yet durable on the server."""
        unsettled = self._pipeline.outbox.unsettled if self._pipeline else None
        in_hand = self._pipeline.sealer.points_in_hand if self._pipeline else 0
        return Lag(
            points_buffered=self.intake.buffer.points + in_hand,
            frames_unacknowledged=unsettled.frames if unsettled else 0,
            points_unacknowledged=unsettled.points if unsettled else 0,
            bytes_spooled=unsettled.bytes if unsettled else 0,
        )

    def stats(self, *, is_over: bool) -> Stats:
        """What has happened to its points."""
        pipeline, sender, intake = self._pipeline, self._sender, self.intake
        return Stats(
            points_acknowledged=pipeline.outbox.points_acknowledged if pipeline else 0,
            points_dropped=intake.points_dropped
            + (pipeline.outbox.points_dropped + pipeline.sealer.points_lost if pipeline else 0)
            # Another thread may have logged while the buffer was closed: nobody will take that out again.
            + (intake.buffer.points if is_over else 0),
            points_refused=(sender.points_refused if sender else 0) + (pipeline.outbox.points_lost if pipeline else 0),
            bad_values=intake.bad_values + (pipeline.sealer.bad_values if pipeline else 0),
            param_conflicts=sender.param_conflicts if sender else 0,
            frames_sealed=pipeline.outbox.frames_sealed if pipeline else 0,
        )

    def flush(self, deadline: float) -> bool:
        """Wait until what was taken in is settled; whether it is. Deadlines are of `time.monotonic()`.

        Not for those who have gone, of one that is closing.
        """
        if self._closing:
            return False
        if self.is_asleep:
            self._awaken()
        self._ready.wait(until(deadline))
        if self._pipeline is None:
            return False
        seq = self._pipeline.sealer.flush(until(deadline))
        if self._sender is not None:
            self._sender.hurry()
        return seq is not None and self._pipeline.outbox.wait(seq, until(deadline))

    def save_the_rest(self, deadline: float) -> None:
        """What the server has not taken in time goes to the spool, but for values still on a device."""
        self.intake.give_up_late()
        if not self.is_asleep:
            self._ready.wait(until(deadline))
        if self._pipeline is not None:
            self._pipeline.sealer.seal_in_thread(until(deadline))

    def stop_sending(self, timeout_s: float) -> None:
        """No thread is started from here on, and the one that sends ends."""
        with self._gate:
            self._closing = True
        if self._sender is not None:
            self._sender.stop(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Close the spool, last; whether everything is in it that was taken in."""
        is_closed = self._pipeline.sealer.stop(timeout_s) if self._pipeline is not None else self.is_asleep
        self.intake.buffer.close()
        return is_closed

    def _wake(self) -> None:
        if self._pipeline is not None:
            self._pipeline.sealer.wake()

    def _pushed(self) -> None:
        if self._closing:
            # The last seal has taken it, or it is counted.
            return
        if self.is_asleep:
            self._awaken()
        # Not in a handler that has interrupted the start of a thread, which may wait for what it has interrupted: that
        # call writes for both.
        if self._every_call and self._launcher != threading.get_ident():
            self._seal_now()

    def _seal_now(self) -> None:
        # Only until the modules are loaded, once: this mode trades the cost of a call for its promise.
        # Not in the very thread that loads them, where a destructor may log.
        if not self._ready.is_set() and self._opener != threading.get_ident():
            self._ready.wait()
        if self._pipeline is not None:
            self._pipeline.sealer.seal()

    def _awaken(self) -> None:
        """First use in a forked child: its threads start, and what it logs is sent before it leaves."""
        with self._waking:
            # Asked again: of several threads that log first, one starts them.
            if not self.is_asleep or self._launcher is not None:
                return
            self._launcher = threading.get_ident()
        try:
            lifecycle.flush_at_multiprocessing_exit()
            self.launch()
        finally:
            self._launcher = None


def until(deadline: float) -> float:
    """Seconds that are left."""
    return max(0.0, deadline - time.monotonic())
