"""How a file gets into the store: hashed, announced, sent and completed. Each on its own, many side by side."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from stepstream.artifacts import plan
from stepstream.artifacts.body import Body, MemoryBody
from stepstream.artifacts.gathering import Gathering
from stepstream.artifacts.item import Item
from stepstream.artifacts.plan import PartRange
from stepstream.artifacts.reader import Reader, ReaderStopped
from stepstream.artifacts.readers import Readers
from stepstream.artifacts.remote import Damaged, Refused, Remote
from stepstream.artifacts.source import (
    BeingWritten,
    BytesSource,
    FileSource,
    Hashed,
    SourceChanged,
    StreamSource,
    digest,
)
from stepstream.transport import Rejected, Unavailable
from stepstream_schema import limits, paths

WHOLE_AT_ONCE: Final = 4
"""Files that one process sends whole, side by side."""
PARTS_AT_ONCE: Final = 4
"""Parts that it sends beside them, of all its large files together."""
WINDOW_PARTS: Final = 8
"""Parts that are signed together: 128 to 512 MiB, well sent before the signatures expire."""
STREAM_PARTS: Final = 3
"""Parts of streams in memory, of all streams together: 48 MiB."""
FILES_AT_ONCE: Final = 256
"""Files under way, most of which wait for an answer: what waits together is asked together."""
TOGETHER: Final = 64
"""Files that are announced or completed by one request, at most."""
SETTLE_S: Final = 0.2
SETTLE_TRIES: Final = 50
"""A file that is being written to is waited for, ten seconds."""
COMPLETED_BYTES_PER_S: Final = 20_000_000
"""A server that completes reads the file once, in the embedded store; from a slow disk it takes so long."""
STREAM_WAITS_S: Final = (0.5, 1, 2, 4, 8, 16, 30)
"""A stream cannot be read again: what is in memory is tried for as long as the process lives."""
DAMAGED_TRIES: Final = 4

Found = TypeVar("Found")


class Failed(Exception):
    """This file will never be stored as it is; the message says why."""


class Again(Exception):
    """This file is to be announced anew: its upload is gone, or it could not be read just now."""


class Sending:
    """Law: `carry` returns once a file is listed, and raises otherwise.

    Failed is for ever, and TooLarge until somebody has done something. Again, SourceFailed and Damaged concern this
    file, Unavailable, Refused and Rejected all of them; after these it may be carried again, and goes on where it was.
    """

    def __init__(
        self,
        remote: Remote,
        run_id: str,
        rank: int | None,
        readers: Readers,
        in_the_way: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._remote = remote
        self._run_id = run_id
        self._rank = rank
        self._readers = readers
        self._in_the_way = in_the_way
        self._wholes = asyncio.Semaphore(WHOLE_AT_ONCE)
        self._parts = asyncio.Semaphore(PARTS_AT_ONCE)
        self._stream_parts = asyncio.Semaphore(STREAM_PARTS)
        self._announcing = Gathering(self._ask_what_to_do, TOGETHER)
        self._completing = Gathering(self._ask_to_complete, TOGETHER)
        self._busy: list[float] = []
        self.away: Exception | None = None
        """Why the store takes nothing now: what waits for its turn need not find out again."""

    @property
    def busy_until(self) -> float:
        """By when the server should have completed what it was asked to, on the monotonic clock."""
        return max(list(self._busy), default=0.0)

    async def carry(self, item: Item) -> None:
        """Until it is listed."""
        if isinstance(item.source, StreamSource):
            await self._carry_stream(item, item.source)
            return
        if item.sent is None:
            await self._hash(item)
            said = await self._announce(item)
            item.handle.began()
            item.sent = await self._send(item, said)
        if item.sent is not None:
            await self._complete(item)

    async def _hash(self, item: Item) -> None:
        source = item.source
        try:
            if isinstance(source, FileSource) and not (item.hashed is not None and source.unchanged):
                item.hashed = await self._hash_file(item, source)
                item.furthest.clear()
        except FileNotFoundError as error:
            raise Failed(f"{item.path}: it is gone: {error}") from error
        except OSError as error:
            raise Again(f"it cannot be read: {error}") from error
        if not item.counted and item.hashed is not None:
            item.handle.bytes_total += item.hashed.size
            item.counted = True

    async def _hash_file(self, item: Item, source: FileSource) -> Hashed:
        reader = self._readers.small if source.size <= limits.SINGLE_PUT_BYTES else self._readers.large
        for _ in range(SETTLE_TRIES):
            try:
                return await reader.run(lambda: self._read_all(item, source, reader, settled=True))
            except BeingWritten:
                await asyncio.sleep(SETTLE_S)
        return await reader.run(lambda: self._read_all(item, source, reader, settled=False))

    def _read_all(self, item: Item, source: FileSource, reader: Reader, *, settled: bool) -> Hashed:
        before = 0
        for found in source.hashed(self._remote.checks, settled=settled):
            if isinstance(found, Hashed):
                return found
            reader.go_on()
            item.handle.moved += found - before
            before = found
        raise SourceChanged(f"{item.path} ended before its hash")

    async def _announce(self, item: Item) -> dict[str, Any]:
        said = await self._announcing.ask(item)
        if said.get("code") == "MD5_REQUIRED" and item.hashed is not None and not item.hashed.md5:
            # Only now the store has told; from now on it is computed with the rest.
            self._remote.checks.md5 = True
            size = item.hashed.size
            item.hashed = replace(item.hashed, md5=await self._digest(item, "md5", 0, size))
            said = await self._announcing.ask(item)
        if said["state"] == "refused":
            raise Failed(f"{item.path}: {said['message']}")
        return said

    async def _ask_what_to_do(self, items: list[Item]) -> list[dict[str, Any]]:
        body = {"files": [item.announced() for item in items], "rank": self._rank}
        said = await self._remote.call("POST", paths.run_artifacts(self._run_id) + "/uploads", body)
        answers: list[dict[str, Any]] = said["files"]
        return answers

    async def _send(self, item: Item, said: dict[str, Any]) -> dict[str, Any] | None:
        """What completes the upload; None when there is nothing to complete."""
        match said["state"]:
            case "stored":
                return None
            case "put":
                async with self._wholes:
                    await self._put(said, item.body(PartRange(1, 0, item.size)))
                return {"upload_id": said["upload_id"]}
        try:
            return await self._send_parts(item, said)
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors

    async def _send_parts(self, item: Item, said: dict[str, Any]) -> dict[str, Any]:
        size, part_bytes, algorithm = item.size, said["part_bytes"], said["checksum"]
        self._remote.checks.crc32 = algorithm == "crc32"
        checksums: dict[int, str] = {}

        async def check(parts: Sequence[PartRange]) -> None:
            for part in parts:
                if part.number not in checksums:
                    checksums[part.number] = await self._digest(item, algorithm, part.start, part.size)
                    if part.number not in item.checked:
                        item.checked.add(part.number)
                        item.handle.moved += part.size

        have = {(part["number"], part["size"]) for part in said["have"]}
        async with asyncio.TaskGroup() as group:
            for window in plan.windows(plan.missing(size, part_bytes, have), WINDOW_PARTS):
                await check(window)
                signed = await self._sign(said["upload_id"], window, checksums)
                tasks = [group.create_task(self._put_part(item, part, signed[part.number])) for part in window]
                # The next ones are read and signed while the last of these are sent, and not earlier: a signature ages.
                await asyncio.wait(tasks[: len(tasks) // 2 + 1])
        done = {"upload_id": said["upload_id"]}
        if algorithm != "crc32":
            # Other stores keep what they check a part against; of what is there already nothing is read again.
            return done
        await check(plan.parts(size, part_bytes))
        return done | {"checksums": [checksums[number] for number in sorted(checksums)]}

    async def _digest(self, item: Item, algorithm: str, start: int, size: int) -> str:
        source = item.source
        assert not isinstance(source, StreamSource)
        if algorithm == "crc32" and isinstance(source, FileSource) and source.knows(start, size):
            return source.digest(algorithm, start, size)
        reader = self._readers.small if algorithm == "md5" and start == 0 else self._readers.large
        try:
            return await reader.run(lambda: source.digest(algorithm, start, size))
        except OSError as error:
            raise Again(f"it cannot be read: {error}") from error

    async def _put_part(self, item: Item, part: PartRange, signed: dict[str, Any]) -> None:
        async with self._parts:
            await self._put(signed, item.body(part))

    async def _put(self, signed: dict[str, Any], body: Body) -> None:
        if self.away is not None:
            raise self.away
        try:
            await self._remote.put(signed, body)
        except (Unavailable, Refused) as error:
            self.away = error
            raise

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

    async def _complete(self, item: Item) -> None:
        # What is large may take the server minutes, and small files must not wait for that.
        if item.is_whole:
            said = await self._completing.ask(item)
        else:
            (said,) = await self._ask_to_complete([item])
        if said["state"] == "stored":
            return
        item.sent = None
        if said["code"] in ("PARTS_MISSING", "RESOURCE_DOES_NOT_EXIST"):
            raise Again(said["message"])
        raise Failed(f"{item.path}: {said['message']}")

    async def _ask_to_complete(self, items: list[Item]) -> list[dict[str, Any]]:
        works_s = sum(item.size for item in items) / COMPLETED_BYTES_PER_S
        with self._working_for(works_s):
            body = {"uploads": [item.sent for item in items]}
            said = await self._remote.call("POST", paths.UPLOADS + "/complete", body, works_s=works_s)
        answers: list[dict[str, Any]] = said["files"]
        return answers

    @contextmanager
    def _working_for(self, seconds: float) -> Iterator[None]:
        until = time.monotonic() + seconds
        self._busy.append(until)
        try:
            yield
        finally:
            self._busy.remove(until)

    async def _carry_stream(self, item: Item, source: StreamSource) -> None:
        reader = self._readers.streams.pop()
        places = _Places(self._stream_parts)
        try:
            await places.take()
            if await self._read(item, reader, lambda: source.fill(limits.PART_BYTES, reader.go_on)):
                await self._send_stream(item, source, reader, places)
                return
            # From here on it is like any other file, and can be sent again.
            short = BytesSource(source.next_part(limits.PART_BYTES, reader.go_on))
            item.source, item.hashed = short, short.hashed()
            await self._patiently(item, lambda: self.carry(item))
        finally:
            places.give_back()
            self._readers.streams.append(reader)

    async def _send_stream(self, item: Item, source: StreamSource, reader: Reader, places: "_Places") -> None:
        said = await self._patiently(item, lambda: self._announce(item))
        item.handle.began()
        try:
            checksums = await self._send_stream_parts(item, source, reader, places, said)
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        item.hashed = Hashed(size=source.size, sha256=source.sha256, md5="")
        known = {"size": source.size, "sha256": source.sha256}
        item.sent = {"upload_id": said["upload_id"], "checksums": checksums, **known}
        try:
            await self._patiently(item, lambda: self._complete(item))
        except Again as error:
            # It may be complete: the answer was lost, and now nobody knows the upload any more.
            said = await self._patiently(item, lambda: self._announce(item))
            if said["state"] != "stored":
                raise Failed(f"{item.path}: {error}; a stream cannot be read again") from error

    async def _send_stream_parts(
        self, item: Item, source: StreamSource, reader: Reader, places: "_Places", said: dict[str, Any]
    ) -> list[str]:
        """The first has its place in memory already."""
        number, checksums = 0, []

        def read() -> tuple[bytearray, str]:
            part = source.next_part(said["part_bytes"], reader.go_on)
            return part, digest(said["checksum"], [part])

        async def send(part: PartRange, checksum: str, body: bytearray) -> None:
            await self._patiently(item, lambda: self._put_stream_part(item, said["upload_id"], part, checksum, body))
            places.give_back(1)

        async with asyncio.TaskGroup() as group:
            while (found := await self._read(item, reader, read))[0]:
                number += 1
                checksums.append(found[1])
                group.create_task(send(PartRange(number, 0, len(found[0])), found[1], found[0]))
                del found
                await places.take()
        return checksums

    async def _read(self, item: Item, reader: Reader, job: Callable[[], Found]) -> Found:
        try:
            return await reader.run(job)
        except ReaderStopped:
            raise
        except Exception as error:
            raise Failed(f"{item.path}: its stream cannot be read: {error!r}") from error

    async def _put_stream_part(
        self, item: Item, upload_id: str, part: PartRange, checksum: str, body: bytearray
    ) -> None:
        try:
            signed = await self._sign(upload_id, [part], {part.number: checksum})
        except Again as error:
            raise Failed(f"{item.path}: {error}; a stream cannot be read again") from error
        async with self._parts:
            await self._remote.put(signed[part.number], MemoryBody(body, item.progress(part.number)))

    async def _patiently(self, item: Item, attempt: Callable[[], Awaitable[Found]]) -> Found:
        failures = damaged = 0
        while True:
            try:
                return await attempt()
            except (Unavailable, Refused, Rejected) as error:
                self._in_the_way(error)
            except Damaged as error:
                damaged += 1
                if damaged >= DAMAGED_TRIES:
                    raise Failed(f"{item.path}: {error}") from error
            await asyncio.sleep(STREAM_WAITS_S[min(failures, len(STREAM_WAITS_S) - 1)])
            failures += 1
            self.away = None


class _Places:
    """Those of one stream, among the parts that may be in memory."""

    def __init__(self, all_places: asyncio.Semaphore) -> None:
        self._all = all_places
        self._taken = 0

    async def take(self) -> None:
        await self._all.acquire()
        self._taken += 1

    def give_back(self, count: int | None = None) -> None:
        """So many, or all that are left."""
        for _ in range(self._taken if count is None else count):
            self._taken -= 1
            self._all.release()


def _first(error: BaseException) -> BaseException:
    """Of several that happened side by side."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
