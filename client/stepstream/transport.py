"""The border to aiohttp: posts frames and translates what can go wrong.

Unavailable     try again later, nothing is lost: away, too busy, draining, timed out
Rejected        the request was understood and will not be taken as it is: wrong token, wrong server, too large
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from stepstream import credentials
from stepstream_schema import batch, paths

CONNECT_TIMEOUT_S: Final = 5.0
REQUEST_TIMEOUT_S: Final = 60.0
"""A group commit takes milliseconds; a server that says nothing for a minute is gone."""
RETRY_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Unavailable(Exception):
    """The frames may or may not have arrived; sending them again is safe."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(Exception):
    """The server, or something before it, refuses the request as a whole."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server says of each frame of a request; every other index is durable."""

    stored: int
    duplicates: int
    refused: tuple[tuple[int, str, str], ...]
    """(index, code, message): will never be stored."""
    ahead: tuple[tuple[int, int], ...]
    """(index, the writer's mark): to be sent again after lower numbers."""
    param_conflicts: tuple[dict[str, Any], ...]
    hidden: tuple[str, ...] = ()
    """Which runs are stored and not shown, and what to do."""


def parse_answer(body: bytes) -> Answer:
    """The answer of POST /v1/frames. Raises Rejected when something else answered."""
    try:
        raw = json.loads(body)
        return Answer(
            stored=raw["stored"],
            duplicates=raw["duplicates"],
            refused=tuple((item["index"], item["code"], item["message"]) for item in raw["refused"]),
            ahead=tuple((item["index"], item["mark"]) for item in raw["ahead"]),
            param_conflicts=tuple(raw["param_conflicts"]),
            # An older server does not say.
            hidden=tuple(
                f"the experiment {item['experiment']!r} is deleted: run {item['run_id']} is stored, and shown once the "
                f"experiment is back, by stepstream.restore_experiment('{item['experiment_id']}')"
                for item in raw.get("deleted_experiments", ())
            ),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise Rejected(200, f"this is no StepStream server: its answer cannot be read ({error})") from error


class Transport:
    """One connection pool to one server; used within one event loop."""

    def __init__(self, tracking_uri: str, token: str | None) -> None:
        self._url = tracking_uri + paths.FRAMES
        self._headers = {"Content-Type": "application/msgpack"}
        self._authorised = authorised(token, tracking_uri)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Transport":
        # The environment's proxies and .netrc count, as users of requests-based clients expect.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=BlockingResolver(), limit=8, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=True,
            middlewares=self._authorised,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, frames: list[bytes]) -> Answer:
        """Send frames together. Raises Unavailable or Rejected."""
        if self._session is None:
            raise RuntimeError("a Transport is used within `async with`")
        try:
            async with self._session.post(self._url, data=batch.pack(frames), headers=self._headers) as response:
                body = await response.read()
                if response.status == 200:
                    return parse_answer(body)
                raise refusal(response.status, response.headers.get("Retry-After"), body)
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error


def authorised(token: str | None, tracking_uri: str) -> tuple[aiohttp.ClientMiddlewareType, ...]:
    """Says the token, or the address's name and password, in each request to the server.

    In place of what .netrc may know of it, which counts where nothing is said.
    aiohttp refuses a header of the caller's beside a line of .netrc, such as its `default`: only the finished request
    can be told. Another host, to which the server may send on, is not told the token.
    """
    said = credentials.header(token, tracking_uri)
    return (_Authorisation(said, URL(tracking_uri).origin()),) if said else ()


class _Authorisation:
    """Law: a request leaves with these credentials to their origin, and with none to any other."""

    def __init__(self, said: str = "", origin: URL | None = None) -> None:
        self._said = said
        self._origin = origin

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers.popall("Authorization", None)
        if request.url.origin() == self._origin:
            request.headers["Authorization"] = self._said
        return await handler(request)


UNAUTHORISED: Final = (_Authorisation(),)
"""For a request that is signed: a store refuses two kinds of credentials in one, and the token is not for it."""


def refusal(status: int, retry_after: str | None, body: bytes) -> Exception:
    """What an answer that is no success means: Unavailable or Rejected."""
    message = f"HTTP {status}: {_message(body)}"
    if status in RETRY_STATUSES:
        return Unavailable(message, _seconds(retry_after))
    return Rejected(status, message)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])[:500]
    except (ValueError, TypeError, KeyError):
        return body[:200].decode("utf-8", "replace")


def _seconds(retry_after: str | None) -> float | None:
    # An HTTP date is legal too; the backoff's own pause serves as well there.
    try:
        return min(max(float(retry_after), 0.0), 300.0) if retry_after else None
    except ValueError:
        return None


class BlockingLoop(asyncio.SelectorEventLoop):
    """An event loop that does in its own thread what others hand to an executor.

    An executor takes no work once the interpreter has begun to exit: just when the last frames are sent. aiohttp hands
    it the reading of .netrc and the search for a proxy, for each request.
    """

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Its result, which is there already."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            done.set_exception(error)
        return done


class BlockingResolver(AbstractResolver):
    """Resolves names in this very thread, of whatever loop: see BlockingLoop.

    The sender's thread has nothing else to do meanwhile, and sealing goes on in its own.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name."""
        infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=found,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for found, _, proto, _, address in infos
        ]

    async def close(self) -> None:
        """Holds nothing."""
