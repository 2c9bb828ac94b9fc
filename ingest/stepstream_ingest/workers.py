"""The workers' parent: `python -m stepstream_ingest.workers --fd N --workers N`, started by the supervisor.

It imports what a worker needs once, while PostgreSQL starts, and forks the workers from that: they have nothing to
import, and share its memory. It has no event loop and no threads, so that it can fork.
"""

import argparse
import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from stepstream_ingest import child, telemetry, worker
from stepstream_ingest.worker_config import WorkerConfig

LOGGER: Final = logging.getLogger(__name__)
RESTART_PAUSE_S: Final = 1.0
KILL_GRACE_S: Final = 5.0
"""Beyond the drain time: a worker that is still there then is killed."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Workers:
    """The worker processes: started, restarted when they die, drained."""

    def __init__(self, config: WorkerConfig, count: int, listener: socket.socket) -> None:
        self._config, self._count, self._listener = config, count, listener
        self._numbers: dict[int, int] = {}
        """Of the workers that live, by process."""
        self._restarts: dict[int, float] = {}
        """When those that died are started anew."""
        self._ready, self._tells_ready = os.pipe()
        self._starting = count

    def run(self, signals: "Signals") -> int:
        """Until SIGTERM or SIGINT; the exit code: not zero if a worker ended before all were ready once."""
        for number in range(self._count):
            self._start(number)
        while not signals.stop:
            signals.wait(self._pause(), self._ready)
            self._count_ready()
            for number, code in self._ended():
                if self._starting:
                    LOGGER.error("worker %d ended with %d while it started", number, code)
                    self._drain(signals)
                    return 1
                LOGGER.error("worker %d ended with %d and is restarted", number, code)
                self._restarts[number] = time.monotonic() + RESTART_PAUSE_S
            for number in [number for number, due in self._restarts.items() if due <= time.monotonic()]:
                self._restart(number)
        self._drain(signals)
        return 0

    def _start(self, number: int) -> None:
        pid = child.fork(lambda: self._be(number), on_parent_death=signal.SIGTERM)
        self._numbers[pid] = number

    def _restart(self, number: int) -> None:
        try:
            self._start(number)
        except OSError as error:
            LOGGER.error("worker %d cannot be restarted yet: %s", number, error)
            self._restarts[number] = time.monotonic() + RESTART_PAUSE_S
        else:
            del self._restarts[number]

    def _be(self, number: int) -> None:
        """What the forked process does."""
        os.close(self._ready)
        worker.run(replace(self._config, worker=number), self._listener, self._say_ready)

    def _say_ready(self) -> None:
        os.write(self._tells_ready, b".")
        os.close(self._tells_ready)

    def _count_ready(self) -> None:
        if select.select([self._ready], [], [], 0)[0]:
            # Those that are restarted say so, too.
            self._starting = max(0, self._starting - len(os.read(self._ready, 512)))

    def _pause(self) -> float | None:
        return max(0.0, min(self._restarts.values()) - time.monotonic()) if self._restarts else None

    def _ended(self) -> Iterator[tuple[int, int]]:
        """(number, exit code) of workers that are no more; below zero for a signal."""
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            telemetry.forget(pid)
            yield self._numbers.pop(pid), os.waitstatus_to_exitcode(status)

    def _drain(self, signals: "Signals") -> None:
        """What is admitted is committed and answered; who is still there after the stated time is killed."""
        self._send(signal.SIGTERM)
        deadline = time.monotonic() + self._config.drain_s + KILL_GRACE_S
        while self._numbers and (left := deadline - time.monotonic()) > 0:
            for _ in self._ended():
                pass
            if self._numbers:
                signals.wait(left)
        for number in self._numbers.values():
            LOGGER.error("worker %d did not drain in %g s and is killed", number, self._config.drain_s)
        self._send(signal.SIGKILL)
        for pid in self._numbers:
            os.waitpid(pid, 0)

    def _send(self, number: signal.Signals) -> None:
        for pid in self._numbers:
            os.kill(pid, number)


class Signals:
    """Signals as bytes in a pipe, which a process without an event loop can wait for."""

    def __init__(self) -> None:
        self.stop = False
        self._pipe, end = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(end, False)
        signal.set_wakeup_fd(end)
        for number in SIGNALS:
            # Python writes the number into the pipe only for signals that have a handler.
            signal.signal(number, self._note)

    def wait(self, seconds: float | None, *others: int) -> None:
        """Until a signal comes, one of the others can be read, or the time is over."""
        select.select([self._pipe, *others], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._pipe, 512):
                pass

    def _note(self, number: int, _: object) -> None:
        self.stop = self.stop or number != signal.SIGCHLD


def main() -> int:
    """Wait to be told what the workers are told, and run them."""
    parser = argparse.ArgumentParser(prog="stepstream_ingest.workers")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket, inherited")
    parser.add_argument("--workers", type=int, required=True, help="how many")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s workers %(levelname)s %(message)s", stream=sys.stderr)
    told = sys.stdin.readline()
    if not told:
        # The supervisor did not get so far; it says why.
        return 0
    telemetry.forget_others()
    listener = socket.socket(fileno=arguments.fd)
    listener.setblocking(False)
    signals = Signals()
    # What has been imported stays: looks for cycles need not go through it, nor each worker copy it for that.
    gc.freeze()
    return Workers(WorkerConfig.from_json(told), arguments.workers, listener).run(signals)


if __name__ == "__main__":
    sys.exit(main())
