"""Takes connections off the listening socket that all workers share, so that each worker has its part of them.

An event loop that accepts as long as there is somebody takes all of a burst: eight ranks that start together would sit
on one core, for as long as their connections live.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from aiohttp import web

from stepstream_ingest.tally import Tally

LOGGER: Final = logging.getLogger(__name__)
YIELD_S: Final = 0.005
"""For a worker that has fewer connections to come first; then it has something else to do, or is dead."""
PUBLISH_S: Final = 0.1
FULL_PAUSE_S: Final = 1.0
"""After the system had no descriptor or memory left for another connection."""
FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Law: every connection is accepted, `YIELD_S` later than it could be if others have fewer and do not come."""

    def __init__(self, listener: socket.socket, server: web.Server, tally: Tally, on_full: Callable[[], None]) -> None:
        """`on_full` is called when somebody cannot be let in."""
        self._listener, self._server, self._tally, self._on_full = listener, server, tally, on_full
        self._loop = asyncio.get_running_loop()
        self._has_yielded = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to accept."""
        self._listen()
        self._publish()

    def stop(self) -> None:
        """Accept no more; what is open stays."""
        self._loop.remove_reader(self._listener)
        for timer in self._timers.values():
            timer.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._on_connection)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._timers["pause"] = self._loop.call_later(seconds, self._listen)

    def _publish(self) -> None:
        self._tally.publish(self._count())
        self._timers["publish"] = self._loop.call_later(PUBLISH_S, self._publish)

    def _count(self) -> int:
        return len(self._server.connections) + len(self._opening)

    def _on_connection(self) -> None:
        count = self._count()
        if not self._has_yielded and count > self._tally.fewest():
            self._has_yielded = True
            self._pause(YIELD_S)
            return
        self._has_yielded = False
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has gone
        except OSError as error:
            if error.errno not in FULL:
                raise
            LOGGER.error("no connection can be accepted for a second: %s", error.strerror)
            self._on_full()
            self._pause(FULL_PAUSE_S)
            return
        self._tally.publish(count + 1)
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(self._server, connection)
        except OSError as error:
            connection.close()
            LOGGER.info("a client went away as it came: %s", error)
