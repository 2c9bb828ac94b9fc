"""The handle a training script holds: every method returns at once and none raises after the run has started."""

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from stepstream import active, ending, lifecycle, settings
from stepstream.buffer import Note
from stepstream.errors import ArtifactError
from stepstream.intake import REMOVED
from stepstream.joining import Joinable
from stepstream.notices import Notices
from stepstream.report import FinishReport, Lag, Stats
from stepstream.run_artifacts import RunArtifacts, new_uploader
from stepstream.writer import Writer, until
from stepstream_schema import limits, paths
from stepstream_schema.attempt import Attempt

if TYPE_CHECKING:
    import pandas

    from stepstream.artifacts.uploader import Uploader
    from stepstream.entities import RunData
    from stepstream.run_info import OpenRunInfo

DESCRIBE_S: Final = 2.0
"""How long finish() waits, at most, for what is asked of git; a run that ends at once still says its commit."""

CLOSE_S: Final = 5.0
"""finish() may take so much longer than its limit: what is left goes to the spool, and threads end."""

# Writers of the parent process, kept alive in forked children: collecting the sockets of their senders would take those
# out of the epoll set that the child shares with its parent.
_ABANDONED: list[object] = []


class Run(RunArtifacts, Joinable):
    """One writer of one run.

    Law: after construction nothing that logs blocks on the network or raises; what is lost is counted in `stats` and
    said once. Made by `start_run`.
    """

    def __init__(
        self,
        *,
        run_id: str,
        run_name: str | None,
        rank: int | None,
        attempt: Attempt,
        settings: settings.Settings,
        adopts: bool = True,
        start_time_ms: int | None = None,
        is_child: bool = False,
    ) -> None:
        """`adopts`: deliver, too, what processes that are gone have left in the spool. `is_child`: as if forked."""
        self._notices = Notices()
        self.run_id = run_id
        """32 hex digits."""
        self.experiment = settings.experiment
        self.rank = rank
        self.attempt = attempt
        self._adopts = adopts
        self._settings = settings
        self.status = "RUNNING"
        """As this process has said it."""
        self._start_time_ms = time.time_ns() // 1_000_000 if start_time_ms is None else start_time_ms
        self._info: OpenRunInfo | None = None
        self._is_child = is_child
        self._finished: FinishReport | None = None
        self._finish_lock = threading.RLock()
        self._open_writer(run_name)
        self.name = self._writer.run_name
        if not is_child:
            self._writer.launch()
        lifecycle.register(self)

    def _open_writer(self, run_name: str | None) -> None:
        self._uploaders: list[Uploader] = []
        """The first one sends."""
        self._writer = Writer(
            run_id=self.run_id,
            run_name=run_name,
            rank=self.rank,
            attempt=self.attempt,
            start_time_ms=self._start_time_ms,
            settings=self._settings,
            notices=self._notices,
            adopts=self._adopts and not self._is_child,
            # The ranks of a job run one script: one of them says which.
            describe=self.set_tags if not self._is_child and self.rank in (None, 0) else None,
            is_asleep=self._is_child,
        )
        # At hand for `log`.
        self._intake = self._writer.intake
        self._buffer = self._intake.buffer

    @property
    def writer(self) -> int:
        """The number of this writer; every process has its own."""
        return self._writer.number

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values that belong together, at `step`; without one, calls are counted from 0.

        Takes floats, ints, bools, NumPy scalars and 0-d arrays, and 0-d torch or JAX tensors, which are read from
        their device later, without a synchronisation in the training loop.
        """
        try:
            values = {**metrics}
            buffer = self._buffer
            rows = buffer.rows
            # The way of nearly every call, without a lock or a function of ours: see benchmarks/log_call.py. A sum is
            # an exact float only if no NumPy scalar, array or tensor is in it, and is faster than asking every type.
            if len(values) <= buffer.fast_values and type(step) is int and type(sum(values.values(), 0.0)) is float:
                if len(rows) < buffer.fast_rows:
                    rows.append((step, time_ns(), values))
                else:
                    self._intake.take(buffer.push(values, step), len(values))
            else:
                self._intake.log_with_care(values, step)
        except Exception:  # noqa: BLE001 - the law of this class; what cannot even be added up is told apart here
            self._intake.log_or_count(metrics, step)

    def log_metric(self, key: str, value: Any, step: int | None = None, timestamp: int | None = None) -> None:
        """Log one value, now or at `timestamp`, in ms since the epoch."""
        try:
            metrics = {key: value}
        except Exception as error:  # noqa: BLE001 - the law of this class
            self._intake.bad(error)
        else:
            self.log_metrics(metrics, step, timestamp)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None, timestamp: int | None = None) -> None:
        """The same as `log`, now or at `timestamp`, in ms since the epoch."""
        if timestamp is None:
            self.log(metrics, step)
        else:
            self._intake.log_or_count(metrics, step, timestamp)

    def log_param(self, key: str, value: object) -> None:
        """Log a parameter; the first value that is stored stays."""
        self._intake.note("param", key, value, limits.MAX_PARAM_VALUE_CHARS)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters."""
        for key, value in self._intake.pairs(params):
            self.log_param(key, value)

    def set_tag(self, key: str, value: object) -> None:
        """Set a tag; the last value stays."""
        self._intake.note("tag", key, value, limits.MAX_TAG_VALUE_CHARS)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        for key, value in self._intake.pairs(tags):
            self.set_tag(key, value)

    def resume(self, time_ms: int) -> None:
        """Say that the run goes on, which may have ended before."""
        try:
            if self.rank in (None, 0):
                self._intake.push_note(Note("status", "", "RUNNING", time_ms))
        except Exception as error:  # noqa: BLE001 - the law of this class
            self._intake.bad(error)

    def delete_tag(self, key: str) -> None:
        """Remove a tag."""
        self._intake.note("tag", key, REMOVED, limits.MAX_TAG_VALUE_CHARS)

    def log_input(self, dataset: Any, context: str | None = None, tags: Mapping[str, object] | None = None) -> None:
        """Say that the run reads a dataset, of `stepstream.data` or of MLflow's, or a mapping with name and digest."""
        try:
            from stepstream import inputs

            note = inputs.note(dataset, context, tags or {}, time.time_ns() // 1_000_000)
            self._intake.push_note(note)
        except Exception as error:  # noqa: BLE001 - the law of this class
            self._intake.bad(error)

    @property
    def info(self) -> "OpenRunInfo":
        """What the run is, under MLflow's names; what only the server knows is asked when it is read."""
        if self._info is None:
            from stepstream.query import Server
            from stepstream.run_info import OpenRunInfo

            self._info = OpenRunInfo(self, Server(self._settings), self._start_time_ms)
        return self._info

    @property
    def data(self) -> "RunData":
        """Latest metrics, params and tags, as the server has them: asks and waits. Raises QueryError."""
        from stepstream.query import Server
        from stepstream.tracking import said

        self.flush()
        return said.run(Server(self._settings).ask("GET", paths.run(self.run_id))).data

    @property
    def lag(self) -> Lag:
        """What was logged and is not yet durable on the server."""
        return self._writer.lag()

    @property
    def stats(self) -> Stats:
        """What has happened to the points of this writer."""
        return self._writer.stats(is_over=self._finished is not None)

    def history(
        self,
        keys: Sequence[str] | str | None = None,
        *,
        rank: int | None = None,
        attempt: str | None = None,
        start_step: int | None = None,
        end_step: int | None = None,
        buckets: int | None = None,
    ) -> "pandas.DataFrame":
        """What the server has of these metrics, or of all: columns key, step, time (UTC) and value.

        Without a rank each step shows its lowest rank, and always its newest attempt unless one is named, such as
        "0.1.0". With `buckets` each metric is summarised in at most so many rows: first, last, min, max, mean, sum and
        counts. Asks the server and waits; flush() first to see what was just logged. Raises QueryError, and
        ConfigurationError where pandas is missing.
        """
        from stepstream import history
        from stepstream.query import Server

        return history.frame(
            Server(self._settings),
            self.run_id,
            keys,
            rank=rank,
            attempt=attempt,
            start_step=start_step,
            end_step=end_step,
            buckets=buckets,
        )

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far is durable on the server; whether it is.

        False when that takes more than `timeout` seconds, and when points were lost before for want of room, or with
        the spool (`run.stats`); what could be kept is durable then all the same. The server knows the run afterwards,
        though nothing was logged yet.
        """
        if self._finished is not None:
            return self._finished.delivered
        if not self._is_child and not self._writer.has_said_anything:
            self.resume(time.time_ns() // 1_000_000)
        return self._writer.flush(self._deadline(timeout)) and not self._writer.has_lost

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._settings.finish_timeout_s if timeout is None else timeout)

    def finish(
        self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", timeout: float | None = None
    ) -> FinishReport:
        """End this writer's part of the run and wait for the server, at most `timeout` seconds.

        Without a timeout it waits STEPSTREAM_FINISH_TIMEOUT for metrics, and for artifacts as long as they move, at
        most STEPSTREAM_ARTIFACT_TIMEOUT.

        What is left then stays in the spool and the report says where; for that it may take CLOSE_S longer. What is
        logged meanwhile is dropped and counted. A forked child only flushes: the run is its parent's. Calling it again
        changes nothing. Of a status the case is all one; what is none is said, and the run ends as FAILED.
        """
        deadline = self._deadline(timeout)
        return self._end(status, deadline, None if timeout is None else deadline)

    def _end(self, status: object, deadline: float, artifacts_until: float | None) -> FinishReport:
        with self._finish_lock:
            if self._finished is not None:
                return self._finished
            if not self._is_child:
                # What runs is being asked off this thread, and is part of the run.
                self._writer.described.wait(min(DESCRIBE_S, until(deadline)))
                self._end_as(status)
            had_nothing_to_say = self._is_child and self._writer.is_asleep and self._uploader is None
            # Nothing that is logged from here on could still be waited for.
            self._intake.ending = True
            self._buffer.close()
            if not had_nothing_to_say:
                self._writer.flush(deadline)
            return self._close(artifacts_stored=self._finish_artifacts(artifacts_until))

    def _end_as(self, status: object) -> None:
        # Said once, though a finish() that was interrupted is called again.
        if not self._intake.ending:
            self.status = ending.status(status, self._notices)
            self._intake.end_as(self.status)

    def flush_artifacts(self, timeout: float | None = None) -> bool:
        """Wait until the files that were logged so far are stored; whether they are.

        At most `timeout` seconds, by default as long as they move, and STEPSTREAM_ARTIFACT_TIMEOUT.
        """
        return self._finish_artifacts(None if timeout is None else time.monotonic() + timeout)

    def _finish_artifacts(self, deadline: float | None) -> bool:
        if self._uploader is None:
            return True
        limit = self._settings.artifact_timeout_s if deadline is None else until(deadline)
        if self._writer.is_closing:
            # An earlier finish() was interrupted when it had waited already.
            limit = 0.0
        return self._uploader.finish(timeout_s=limit, still_s=self._settings.finish_timeout_s)

    def _close(self, *, artifacts_stored: bool) -> FinishReport:
        end = time.monotonic() + CLOSE_S
        active.closed(self)
        self._writer.save_the_rest(end)
        left: tuple[str, ...] = ()
        failed: tuple[str, ...] = ()
        failures = 0
        if self._uploader is not None:
            unsaved = self._uploader.unsaved()
            left, failed = self._uploader.left(), unsaved + self._uploader.failed()
            failures = len(unsaved) + self._uploader.failures
        # Half of the time each: the spool is closed last, and must not find all of it spent.
        self._writer.stop_sending(until(end) / 2)
        if self._uploader is not None:
            self._uploader.stop(until(end) / 2)
        is_closed = self._writer.stop(until(end))
        lifecycle.unregister(self)
        self._finished = self._report(left, failed, failures, is_whole=artifacts_stored and is_closed)
        if not self._finished.delivered:
            self._notices.once("finish", f"run {self.run_id} ended {self._finished.what_is_left()}")
        return self._finished

    def _report(
        self, artifacts_left: tuple[str, ...], artifacts_failed: tuple[str, ...], failures: int, *, is_whole: bool
    ) -> FinishReport:
        outbox = self._writer.outbox
        left = outbox.left if outbox is not None else None
        lost = self.stats.points_dropped + self.lag.points_buffered
        if outbox is not None and left is not None:
            lost += outbox.points_lost + left.points_lost
            is_whole = is_whole and not (left.frames or left.frames_lost)
        return FinishReport(
            delivered=is_whole and not lost and not self._writer.has_lost,
            frames_left=left.frames if left is not None else 0,
            points_left=left.points if left is not None else 0,
            points_lost=lost,
            artifacts_left=artifacts_left,
            artifacts_failed=artifacts_failed,
            artifacts_failed_count=failures,
            spool_dir=self._settings.spool_dir,
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or (isinstance(error, SystemExit) and not lifecycle.is_failure(error.code)):
            self.finish("FINISHED")
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    def _artifacts(self) -> "Uploader":
        if self._finished is not None:
            raise ArtifactError("the run is finished; stepstream artifacts put adds files to it")
        if not self._uploaders:
            self._writer.wait_until_loaded()
            # Without a lock, which a signal handler could find held: of several that are made together one is used.
            self._uploaders.append(new_uploader(self._settings, self.run_id, self.rank, self._notices))
            if self._writer.is_asleep:
                lifecycle.flush_at_multiprocessing_exit()
        return self._uploaders[0]

    @property
    def _uploader(self) -> "Uploader | None":
        return next(iter(self._uploaders), None)

    def _before_fork(self) -> None:
        # A child that is forked while modules are being imported would inherit them half done, for good.
        self._writer.wait_until_loaded()

    def _after_fork_in_child(self) -> None:
        """A child inherits rank and attempt, and none of the parent's points, numbers, files or threads."""
        _ABANDONED.append(self._writer)
        self._is_child = True
        self._finish_lock = threading.RLock()
        self._notices = Notices()
        self._open_writer(self.name)

    def _at_exit(self, *, failed: bool, waited_s: float) -> None:
        with contextlib.suppress(Exception):  # nobody is left to tell, and the spool has what there is
            self._end("FAILED" if failed else "FINISHED", self._deadline(None) - waited_s, None)
