"""One worker process, forked by the workers' parent."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from stepstream_ingest.acceptor import Acceptor
from stepstream_ingest.app import HEARING, create_app
from stepstream_ingest.tally import Tally
from stepstream_ingest.worker_config import WorkerConfig

GC_OBJECTS: Final = 50_000
"""New containers between two looks for cycles."""
LOGGER: Final = logging.getLogger(__name__)
CLOSE_S: Final = 1.0
"""After the drain, for the last answers to leave."""
FORCE_S: Final = 10.0
"""Beyond drain and close: its supervisor, which would kill it, may be dead itself."""


async def serve(config: WorkerConfig, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Until SIGTERM or SIGINT; then what is admitted is committed and answered, within `drain_s`."""
    app, drain = create_app(config)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S, keepalive_timeout=75.0)
    await runner.setup()
    assert runner.server is not None
    acceptor = Acceptor(listener, runner.server, Tally(Path(config.tally), config.worker), app[HEARING].interrupted)
    acceptor.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    LOGGER.info("worker %d is ready", config.worker)
    on_ready()
    await stop.wait()
    _end_by_force(config.drain_s + CLOSE_S + FORCE_S)
    acceptor.stop()
    left = await drain.begin(config.drain_s)
    if left:
        LOGGER.warning(
            "%d requests were not answered within %g s; their senders keep what they hold", left, config.drain_s
        )
    await runner.cleanup()
    LOGGER.info("worker %d has drained", config.worker)


def _end_by_force(seconds: float) -> None:
    """End the process if it has not ended by itself; a thread, since it may be the event loop that is stuck."""

    def end() -> None:
        LOGGER.error("worker did not stop within %g s and ends by force; what it acknowledged is stored", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def run(config: WorkerConfig, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Be one worker, in a process of its own."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s worker {config.worker} %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    # A JSON body of a thousand metrics is thousands of objects, none of which makes a cycle: looking for cycles at each
    # of them took a twelfth of the server's time.
    gc.set_threshold(GC_OBJECTS)
    uvloop.run(serve(config, listener, on_ready))
