"""Bodies of signed requests: the other half of the border to aiohttp.

Law: a body is exactly as long as it was announced, or the request fails; and it fails once the store has taken nothing
for SILENT_S.
"""

import asyncio
import os
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

# The package before its modules: a thread that imports it meanwhile, as the sender's does, would wait for the module
# that this one holds while this one waits for the package, and Python lets both fail.
import aiohttp  # noqa: F401
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from stepstream.artifacts.source import FileSource, SourceChanged, SourceFailed, SourceUnreadable

SILENT_S: Final = 60.0
"""A transfer on which nothing has moved for so long is tried again."""
PIECE_BYTES: Final = 256 * 2**10
"""Handed to the network at a time where it passes through Python: memory stays flat whatever the file's size."""
FLUSH_S: Final = 0.001


class Body(Payload):
    """What is sent; it can be sent again."""

    _autoclose = True
    """aiohttp's word for: holds nothing that must be closed."""

    def __init__(self, size: int, moved: Callable[[int], None]) -> None:
        super().__init__(None, content_type="application/octet-stream")
        self._size: int = size
        self._moved = moved
        self.error: Exception | None = None
        """What is wrong with the source: aiohttp tells it as trouble with the connection."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Only aiohttp's logs would ask."""
        return ""

    async def write(self, writer: AbstractStreamWriter) -> None:
        """All of it."""
        self.error = None
        try:
            await self._write(writer)
        except SourceFailed as error:
            self.error = error
            raise

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """As newer versions of aiohttp call it."""
        await self.write(writer)

    @abstractmethod
    async def _write(self, writer: AbstractStreamWriter) -> None: ...

    async def _hand_over(self, writer: AbstractStreamWriter, piece: bytes | memoryview) -> None:
        async with asyncio.timeout(SILENT_S):
            await writer.write(piece)
        self._moved(len(piece))


class MemoryBody(Body):
    """Bytes that are in memory."""

    def __init__(self, body: bytes | bytearray, moved: Callable[[int], None]) -> None:
        super().__init__(len(body), moved)
        self._body = memoryview(body)

    async def _write(self, writer: AbstractStreamWriter) -> None:
        for start in range(0, self._size, PIECE_BYTES):
            await self._hand_over(writer, self._body[start : start + PIECE_BYTES])


class FileBody(Body):
    """A range of a file; from the page cache to the socket without a copy where the connection is a plain one."""

    def __init__(self, source: FileSource, start: int, size: int, moved: Callable[[int], None]) -> None:
        super().__init__(size, moved)
        self._source = source
        self._start = start

    async def _write(self, writer: AbstractStreamWriter) -> None:
        with ExitStack() as stack:
            with self._reading():
                file = stack.enter_context(self._source.opened())
            at, end = self._start, self._start + self._size
            plain = _plain_socket(writer) if self._size > PIECE_BYTES else None
            if plain is not None:
                with plain:
                    at = await self._by_kernel(writer, plain, file, at, end)
            while at < end:
                with self._reading():
                    piece = os.pread(file, min(PIECE_BYTES, end - at), at)
                self._check(len(piece))
                await self._hand_over(writer, piece)
                at += len(piece)
        with self._reading():
            self._source.check()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What goes wrong here is the file's: aiohttp would tell it as trouble with the connection."""
        try:
            yield
        except OSError as error:
            raise SourceUnreadable(f"{self._source.path} cannot be read: {error}") from error

    async def _by_kernel(self, writer: AbstractStreamWriter, plain: socket.socket, file: int, at: int, end: int) -> int:
        """How far that went: to the end, unless it cannot be done."""
        await _send_headers(writer)
        while at < end:
            try:
                sent = os.sendfile(plain.fileno(), file, at, end - at)
            except BlockingIOError:
                await _writable(plain)
                continue
            except ConnectionError:
                # A store that refuses may hang up without reading the rest; its answer says more than this error.
                await _let_read()
                raise
            except OSError:
                # This file or connection has no short way; or one of the two is broken, and the long way tells which.
                return at
            self._check(sent)
            self._moved(sent)
            at += sent
            await asyncio.sleep(0)
        return at

    def _check(self, count: int) -> None:
        if not count:
            raise SourceChanged(f"{self._source.path} became shorter while it was being sent")


def _plain_socket(writer: AbstractStreamWriter) -> socket.socket | None:
    """Another descriptor of the connection, which asyncio does not guard; None where bytes must be encrypted first."""
    transport = getattr(writer, "transport", None)
    if transport is None or transport.get_extra_info("sslcontext") is not None or not hasattr(os, "sendfile"):
        return None
    found = transport.get_extra_info("socket")
    return None if found is None else _duplicate(found)


def _duplicate(found: Any) -> socket.socket:
    duplicate: socket.socket = found.dup()
    duplicate.setblocking(False)
    return duplicate


async def _send_headers(writer: AbstractStreamWriter) -> None:
    writer.send_headers()
    transport: Any = getattr(writer, "transport", None)
    async with asyncio.timeout(SILENT_S):
        while transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport tells nobody when it is empty
            await asyncio.sleep(FLUSH_S)


async def _writable(plain: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(plain.fileno(), ready.set)
    try:
        async with asyncio.timeout(SILENT_S):
            await ready.wait()
    finally:
        loop.remove_writer(plain.fileno())


async def _let_read() -> None:
    """What has arrived on the connection is read: one round to see it, one to hand it on."""
    for _ in range(2):
        await asyncio.sleep(0)
