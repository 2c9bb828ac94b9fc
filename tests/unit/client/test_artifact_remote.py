"""What a server, a store or a proxy that says nothing costs: a bound on silence, after which it counts as away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from stepstream.artifacts import body, remote
from stepstream.artifacts.body import MemoryBody
from stepstream.artifacts.remote import Remote
from stepstream.transport import Unavailable

BYTES = bytes(3_000_000)


@pytest.fixture(params=["nothing", "half an answer"])
async def deaf(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where somebody listens who takes what comes and says nothing, or stops in the middle."""
    open_ones: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        if request.param != "nothing":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield "127.0.0.1:" + str(server.sockets[0].getsockname()[1])
    for writer in open_ones:
        writer.close()
    server.close()


def signed(url: str) -> dict[str, Any]:
    return {"method": "PUT", "url": url, "headers": {}}


ASKED: dict[str, Callable[[Remote], Awaitable[Any]]] = {
    "a question to the server": lambda remote: remote.call("POST", "/x", {}),
    "an upload": lambda remote: remote.put(signed("/x"), MemoryBody(BYTES, lambda _: None)),
    "a download": lambda remote: remote.get(signed("/x"), 0, 100, lambda _: None),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (remote, body):
        monkeypatch.setattr(module, "SILENT_S", 0.2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ASKED)
async def test_who_says_nothing_more_counts_as_away(deaf, what):
    async with Remote(f"http://{deaf}", None) as made:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(ASKED[what](made), 20)


@pytest.mark.usefixtures("impatient")
async def test_a_proxy_that_opens_no_tunnel_counts_as_away(deaf, monkeypatch):
    monkeypatch.setenv("https_proxy", f"http://{deaf}")
    async with Remote("http://127.0.0.1:9", None) as made:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(made.put(signed("https://store.invalid/x"), MemoryBody(b"x", lambda _: None)), 20)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_has_to_work_for_its_answer_is_given_the_time():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.8)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with Remote(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None) as made:
        assert await made.call("POST", "/x", {}, works_s=20) == {}
    server.close()
