"""Writers that post JSON as fast as they are answered, one connection each, at little cost of their own."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import cast
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"


async def post_all(url: str, sources: Sequence[Iterator[bytes]], seconds: float) -> list[float]:
    """Each source's bodies, one after the other, for so long; the seconds that each request took.

    A general HTTP client would take as much of the machine for a request as a good part of what is measured. Raises
    RuntimeError for any answer but 200.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    deadline = time.monotonic() + seconds
    writers = [_Writer(source, head.encode(), deadline, loop.create_future()) for source in sources]
    for writer in writers:
        await loop.create_connection(lambda writer=writer: writer, parts.hostname, parts.port)  # type: ignore[misc]
    return [took for writer in writers for took in await writer.done]


class _Writer(asyncio.Protocol):
    def __init__(
        self, source: Iterator[bytes], head: bytes, deadline: float, done: "asyncio.Future[list[float]]"
    ) -> None:
        self.done = done
        self._source, self._head, self._deadline = source, head, deadline
        self._took: list[float] = []
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self._received += data
        head, end, body = self._received.partition(HEAD_END)
        if not end or len(body) < _length(head):
            return
        self._received = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self._end(RuntimeError(f"{head.splitlines()[0].decode()}: {body[:300].decode()}"))
            return
        self._took.append(time.monotonic() - self._began)
        if time.monotonic() >= self._deadline:
            self._end(None)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Ended by the server, if it was not ended here before."""
        self._end(error or RuntimeError("the server closed the connection"))

    def _send(self) -> None:
        body = next(self._source)
        self._began = time.monotonic()
        self._transport.write(b"%b%d%b%b" % (self._head, len(body), HEAD_END, body))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(self._took)
            else:
                self.done.set_exception(error)
            self._transport.close()


def _length(head: bytes) -> int:
    for line in head.splitlines():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"an answer states no length: {head[:200]!r}")
