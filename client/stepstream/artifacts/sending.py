"""How a batch of files gets into the store: announced together, sent side by side, completed together."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stepstream.artifacts import plan
from stepstream.artifacts.handle import Upload
from stepstream.artifacts.plan import PartRange
from stepstream.artifacts.remote import Refused, Remote
from stepstream.artifacts.source import FileSource, Hashed, SourceChanged, StreamSource, digest
from stepstream.transport import Rejected, Unavailable
from stepstream_schema import limits, paths

BODIES_AT_ONCE: Final = 4
"""Files or parts that one process sends side by side."""
WINDOW_PARTS: Final = 8
"""Parts that are signed together: 128 MiB, well sent before the signatures expire."""
STREAM_AHEAD: Final = 2
"""Parts of a stream in memory: 32 MiB."""
SETTLE_S: Final = 0.2
SETTLE_TRIES: Final = 50
"""A file that is being written to is waited for, ten seconds."""
HASH_SLICE_S: Final = 0.02
"""Hashing gives way to transfers this often."""


class Failed(Exception):
    """This file will never be stored as it is; the message says why."""


class Again(Exception):
    """This file is to be announced anew: its upload is gone, or the file has changed."""


@dataclass(eq=False, slots=True, kw_only=True)
class Item:
    """One file on its way."""

    path: str
    source: FileSource | StreamSource
    content_type: str
    logged_at_ms: int
    handle: Upload
    hashed: Hashed | None = None
    tries: int = 0
    """How often it came back by its own fault."""
    counted: bool = False
    sent: dict[str, Any] | None = None
    """What completes its upload: its bytes are in the store, and a stream could not send them again."""
    waits_for: Any = field(default=None)
    """Kept alive and told when the file is settled: the note in the spool."""


class Batch:
    """Law: every item ends in one of the lists, unless the batch raises; it may then be sent again."""

    def __init__(self, remote: Remote, run_id: str, rank: int | None) -> None:
        self._remote = remote
        self._run_id = run_id
        self._rank = rank
        self._bodies = asyncio.Semaphore(BODIES_AT_ONCE)
        self.completing = False
        """Whether the server is making whole files of parts."""
        self.stored: list[Item] = []
        self.again: list[tuple[Item, str]] = []
        """Their uploads are gone, or they have changed."""
        self.refused: list[tuple[Item, str]] = []
        """The store does not take them now."""
        self.failed: list[tuple[Item, str]] = []
        """They will never be stored."""
        self.unreadable: list[tuple[Item, str]] = []
        """They cannot be read here."""

    async def send(self, items: Sequence[Item]) -> None:
        """Send them. Raises Unavailable and Rejected for what concerns the server or store as a whole."""
        ready = [item for item in items if item.sent is not None or await self._hash(item)]
        fresh = [item for item in ready if item.sent is None]
        answers = await self._announce(fresh) if fresh else []
        results = await asyncio.gather(
            *(self._send(item, said) for item, said in zip(fresh, answers, strict=True)), return_exceptions=True
        )
        troubles = [self._sort(item, result) for item, result in zip(fresh, results, strict=True)]
        sent = [(item, item.sent) for item in ready if item.sent is not None]
        if sent:
            await self._complete(sent)
        # Only now: what has arrived must not be sent once more because its neighbour's store is away.
        for trouble in troubles:
            if trouble is not None:
                raise trouble

    async def _hash(self, item: Item) -> bool:
        if isinstance(item.source, StreamSource):
            return True
        try:
            if item.hashed is not None and item.source.unchanged:
                return True
            for _ in range(SETTLE_TRIES):
                if not item.source.is_being_written:
                    break
                await asyncio.sleep(SETTLE_S)
            slice_end, done = time.monotonic() + HASH_SLICE_S, 0
            for found in item.source.hashed():
                if isinstance(found, Hashed):
                    item.hashed = found
                    continue
                item.handle.bytes_hashed += found - done
                done = found
                if time.monotonic() > slice_end:
                    await asyncio.sleep(0)
                    slice_end = time.monotonic() + HASH_SLICE_S
        except SourceChanged as error:
            self.again.append((item, str(error)))
            return False
        except OSError as error:
            self.unreadable.append((item, f"{item.path}: it cannot be read: {error}"))
            return False
        if not item.counted and item.hashed is not None:
            item.handle.bytes_total += item.hashed.size
            item.counted = True
        return True

    async def _announce(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        files = [_announced(item) for item in items]
        path = paths.run_artifacts(self._run_id) + "/uploads"
        said = await self._remote.call("POST", path, {"files": files, "rank": self._rank})
        answers: list[dict[str, Any]] = said["files"]
        return answers

    async def _send(self, item: Item, said: dict[str, Any]) -> dict[str, Any] | None:
        """What completes the upload; None when there is nothing to complete."""
        item.handle.began()
        match said["state"]:
            case "stored":
                return None
            case "refused":
                raise Failed(f"{item.path}: {said['message']}")
            case "put":
                await self._put_whole(item, said)
                return {"upload_id": said["upload_id"]}
        if isinstance(item.source, StreamSource):
            return await self._send_stream(item, item.source, said)
        return await self._send_parts(item, item.source, said)

    async def _put_whole(self, item: Item, said: dict[str, Any]) -> None:
        assert isinstance(item.source, FileSource)
        assert item.hashed is not None
        async with self._bodies:
            await self._remote.put(said, _body(item, item.source, 0, item.hashed.size), item.hashed.size)

    async def _send_parts(self, item: Item, source: FileSource, said: dict[str, Any]) -> dict[str, Any]:
        assert item.hashed is not None
        size, part_bytes = item.hashed.size, said["part_bytes"]
        checksums: dict[int, str] = {}

        async def check(parts: Sequence[PartRange]) -> None:
            for part in parts:
                if part.number not in checksums:
                    checksums[part.number] = source.digest(said["checksum"], part.start, part.size)
                    await asyncio.sleep(0)

        have = {(part["number"], part["size"]) for part in said["have"]}
        async with asyncio.TaskGroup() as group:
            for window in plan.windows(plan.missing(size, part_bytes, have), WINDOW_PARTS):
                await check(window)
                signed = await self._sign(said["upload_id"], window, checksums)
                tasks = [group.create_task(self._put_part(item, source, part, signed[part.number])) for part in window]
                # The next ones are read and signed while the last of these are sent, and not earlier: a signature ages.
                await asyncio.wait(tasks[: len(tasks) // 2 + 1])
        await check(plan.parts(size, part_bytes))
        return {"upload_id": said["upload_id"], "checksums": [checksums[number] for number in sorted(checksums)]}

    async def _put_part(self, item: Item, source: FileSource, part: PartRange, signed: dict[str, Any]) -> None:
        async with self._bodies:
            await self._remote.put(signed, _body(item, source, part.start, part.size), part.size)

    async def _send_stream(self, item: Item, source: StreamSource, said: dict[str, Any]) -> dict[str, Any]:
        number, checksums = 0, []
        under_way: set[asyncio.Task[None]] = set()
        try:
            # A pipe may be slow, and other transfers go on meanwhile.
            while part := await _aside(source.next_part, said["part_bytes"]):
                number += 1
                checksums.append(digest(said["checksum"], [part]))
                if len(under_way) >= STREAM_AHEAD:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                work = self._put_stream_part(
                    item, said["upload_id"], PartRange(number, 0, len(part)), checksums[-1], part
                )
                under_way.add(asyncio.create_task(work))
            await asyncio.gather(*under_way)
        except BaseException:
            for task in under_way:
                task.cancel()
            raise
        size = {"size": source.size, "sha256": source.sha256}
        return {"upload_id": said["upload_id"], "checksums": checksums, **size}

    async def _put_stream_part(self, item: Item, upload_id: str, part: PartRange, checksum: str, body: bytes) -> None:
        # A stream cannot be read again: what is in memory is tried until it is there.
        for wait_s in (0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, None):
            try:
                signed = (await self._sign(upload_id, [part], {part.number: checksum}))[part.number]
                async with self._bodies:
                    await self._remote.put(signed, _bytes(item, body), part.size)
                return
            except (Unavailable, Refused):
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)

    async def _sign(
        self, upload_id: str, parts: Sequence[PartRange], checksums: dict[int, str]
    ) -> dict[int, dict[str, Any]]:
        wanted = [{"number": part.number, "size": part.size, "checksum": checksums[part.number]} for part in parts]
        try:
            said = await self._remote.call("POST", paths.upload(upload_id) + "/parts", {"parts": wanted})
        except Rejected as error:
            if error.status == 404:
                raise Again(str(error)) from error
            raise
        return {part["number"]: part for part in said["parts"]}

    async def _complete(self, sent: Sequence[tuple[Item, dict[str, Any]]]) -> None:
        self.completing = True
        try:
            said = await self._remote.call("POST", paths.UPLOADS + "/complete", {"uploads": [done for _, done in sent]})
        finally:
            self.completing = False
        for (item, _), answer in zip(sent, said["files"], strict=True):
            item.sent = None
            if answer["state"] == "stored":
                self.stored.append(item)
                continue
            retry = answer["code"] in ("PARTS_MISSING", "RESOURCE_DOES_NOT_EXIST")
            (self.again if retry else self.failed).append((item, f"{item.path}: {answer['message']}"))

    def _sort(self, item: Item, result: object) -> Exception | None:
        """What concerns more than this item."""
        error = _first(result)
        match error:
            case None:
                if isinstance(result, dict):
                    item.sent = result
                else:
                    self.stored.append(item)
            case Failed():
                self.failed.append((item, str(error)))
            case Again() | SourceChanged():
                self.again.append((item, f"{item.path}: {error}"))
            case Refused():
                self.refused.append((item, f"{item.path}: {error}"))
            case Unavailable() | Rejected():
                return error
            case OSError():
                self.unreadable.append((item, f"{item.path}: it cannot be read: {error}"))
            case Exception():
                # Whatever a user's own file object raises, the files beside it are sent.
                self.failed.append((item, f"{item.path}: it cannot be sent: {error!r}"))
            case _:
                raise error
        return None


async def _aside(call: Callable[[int], bytes], argument: int) -> bytes:
    """In a thread of its own: an executor takes no work once the interpreter has begun to exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def settle(result: bytes, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result, failure = b"", None
        try:
            result = call(argument)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="stepstream-stream", daemon=True).start()
    return await done


def _first(result: object) -> BaseException | None:
    """The error in a result; of several that happened side by side, the first."""
    while isinstance(result, BaseExceptionGroup):
        result = result.exceptions[0]
    return result if isinstance(result, BaseException) else None


def _announced(item: Item) -> dict[str, Any]:
    said: dict[str, Any] = {
        "path": item.path,
        "content_type": item.content_type,
        "logged_at_ms": item.logged_at_ms,
    }
    if item.hashed is None:
        return said
    md5 = {"md5": item.hashed.md5} if item.hashed.size <= limits.SINGLE_PUT_BYTES else {}
    return said | {"size": item.hashed.size, "sha256": item.hashed.sha256} | md5


async def _body(item: Item, source: FileSource, start: int, size: int) -> AsyncIterator[bytes]:
    for piece in source.pieces(start, size):
        item.handle.bytes_sent += len(piece)
        yield piece


async def _bytes(item: Item, body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 2**18):
        piece = body[start : start + 2**18]
        item.handle.bytes_sent += len(piece)
        yield piece
