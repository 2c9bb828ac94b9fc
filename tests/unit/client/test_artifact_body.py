"""Bodies on real connections: whole, or an error."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stepstream.artifacts.body import Body, FileBody, MemoryBody
from stepstream.artifacts.remote import Refused, Remote, TooLarge
from stepstream.artifacts.source import Checks, FileSource, SourceChanged, SourceUnreadable

SIZE = 9_000_001


async def put(body: Body, handle: Callable[[web.Request], Any]) -> None:
    app = web.Application(client_max_size=2**30)
    app.router.add_put("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Remote(f"http://127.0.0.1:{runner.addresses[0][1]}", None) as remote:
            await remote.put({"method": "PUT", "url": "/", "headers": {}}, body)
    finally:
        await runner.cleanup()


async def received(body: Body) -> bytes:
    found = []

    async def take(request: web.Request) -> web.Response:
        found.append(await request.read())
        return web.Response()

    await put(body, take)
    return found[0]


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    (tmp_path / "file").write_bytes(os.urandom(SIZE))
    source = FileSource(tmp_path / "file")
    list(source.hashed(Checks()))
    return source


def cannot(*_: Any) -> int:
    raise OSError(errno.EINVAL, "this file system has no short way")


@pytest.mark.parametrize("by_kernel", [True, False])
@pytest.mark.parametrize(("start", "size"), [(0, SIZE), (5, 300_000), (SIZE - 70_000, 70_000), (SIZE - 1, 1)])
async def test_a_range_of_a_file_arrives_as_it_is(source, monkeypatch, by_kernel, start, size):
    sendfile, by = os.sendfile, []

    def counted(*arguments: Any) -> int:
        by.append(sendfile(*arguments))
        return by[-1]

    monkeypatch.setattr(os, "sendfile", counted if by_kernel else cannot)
    moved: list[int] = []
    found = await received(FileBody(source, start, size, moved.append))
    assert found == source.path.read_bytes()[start : start + size]
    assert sum(moved) == size
    assert sum(by) == (size if by_kernel and size > 2**18 else 0)


async def test_bytes_in_memory_arrive_as_they_are():
    body = os.urandom(SIZE)
    assert await received(MemoryBody(body, lambda _: None)) == body


@pytest.mark.parametrize("by_kernel", [True, False])
async def test_a_file_that_is_cut_off_meanwhile_is_an_error_and_no_outage(source, monkeypatch, by_kernel):
    if not by_kernel:
        monkeypatch.setattr(os, "sendfile", cannot)

    def cut(_: int) -> None:
        os.truncate(source.path, 2**19)

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    with pytest.raises(SourceChanged):
        await put(FileBody(source, 0, SIZE, cut), take)


async def test_a_file_that_is_written_to_meanwhile_is_an_error(source):
    def write(_: int) -> None:
        with source.path.open("r+b") as file:
            file.write(b"other")

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    with pytest.raises(SourceChanged):
        await put(FileBody(source, 0, SIZE, write), take)


async def test_a_store_that_refuses_before_it_has_read_all_is_heard(source):
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403, text="ExpiredToken")

    with pytest.raises(Refused, match="ExpiredToken"):
        await put(FileBody(source, 0, SIZE, lambda _: None), refuse)


@pytest.mark.parametrize("size", [SIZE, 1000])
async def test_a_disk_that_gives_nothing_more_is_no_outage_of_the_store(source, monkeypatch, size):
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "sendfile", broken)
    monkeypatch.setattr(os, "pread", broken)

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    with pytest.raises(SourceUnreadable, match="Input/output error"):
        await put(FileBody(source, 0, size, lambda _: None), take)


async def test_a_file_that_is_gone_when_its_turn_comes_is_no_outage_of_the_store(source):
    source.path.unlink()

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    with pytest.raises(SourceUnreadable, match="No such file"):
        await put(FileBody(source, 0, SIZE, lambda _: None), take)


@pytest.mark.parametrize("by_kernel", [True, False])
@pytest.mark.parametrize("size", [SIZE, 1000])
async def test_a_proxy_that_takes_no_such_body_is_heard_before_it_has_read_it(source, monkeypatch, by_kernel, size):
    if not by_kernel:
        monkeypatch.setattr(os, "sendfile", cannot)

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=413, text="<center>nginx</center>")

    with pytest.raises(TooLarge, match=f"takes no body of {size} bytes"):
        await put(FileBody(source, 0, size, lambda _: None), refuse)
