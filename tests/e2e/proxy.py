"""A TCP proxy on 127.0.0.1 whose faults are switched while it runs."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType


class Proxy:
    """Passes bytes to `port` unless told to lose answers or to refuse connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self.lose_answers = 0
        """How many answers will be dropped, together with their connection, after the server gave them."""
        self.answers_lost = 0
        self.refuse = False
        self.drop: bytes = b""
        """Requests that hold these bytes are dropped, `drops` times, with their connection: the server sees none."""
        self.drops = 0
        self.hold: bytes = b""
        """Requests that hold these bytes wait here for as long as this says so, once `passes` of them have passed."""
        self.passes = 0
        self.hold_after = 0
        """So many bytes pass, both ways together, and then no request does for as long as this says so; 0 is all."""
        self.bytes_passed = 0
        """Both ways."""
        self.bytes_per_s = 0
        """How fast requests pass on each connection; 0 is as fast as they come."""

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.hold, self.hold_after = b"", 0
        self.cut()

    def cut(self) -> None:
        """Close every connection now."""
        for writer in list(self._links):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._links |= {writer, up_writer}
        await asyncio.gather(self._pass(reader, up_writer), self._answer(up_reader, writer, up_writer))
        self._links -= {writer, up_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(65536):
                if self.drops and self.drop in data:
                    self.drops -= 1
                    break
                while self._holds(data):
                    await asyncio.sleep(0.01)
                self.bytes_passed += len(data)
                writer.write(data)
                await writer.drain()
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
        writer.close()

    def _holds(self, data: bytes) -> bool:
        if 0 < self.hold_after <= self.bytes_passed:
            return True
        if not self.hold or self.hold not in data:
            return False
        self.passes -= 1
        return self.passes < 0

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up_writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(65536):
                if self.lose_answers and data.startswith(b"HTTP/1.1 200"):
                    self.lose_answers -= 1
                    self.answers_lost += 1
                    break
                self.bytes_passed += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()
        up_writer.close()


@contextlib.contextmanager
def in_thread(port: int) -> Iterator[Proxy]:
    """A proxy with an event loop of its own, for tests that have none."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Proxy(port)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
