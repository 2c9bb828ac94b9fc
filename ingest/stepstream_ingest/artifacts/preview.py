"""The beginning of a file as something to look at, without fetching the rest of it."""

import asyncio
import csv
import io
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import orjson

from stepstream_ingest.artifacts.manifest import File
from stepstream_ingest.artifacts.stores.store import Store
from stepstream_ingest.errors import ApiError

TEXT_BYTES: Final = 256 * 2**10
IMAGE_BYTES: Final = 16 * 2**20
PARQUET_BYTES: Final = 64 * 2**20
"""Fetched at most for the first rows: one row group of the columns, and the footer."""
UNPACKED_BYTES: Final = 512 * 2**20
"""What the row groups of the first rows may have, by their own account, when they are unpacked."""
TABLES_AT_ONCE: Final = 2
"""Tables that one worker unpacks side by side; who asks for more of them waits."""
ROWS: Final = 100
COLUMNS: Final = 200
CELL_CHARS: Final = 300
EXACT_DIGITS: Final = 15
"""Longer whole numbers are shown as text: a browser's numbers would round them."""

IMAGES: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}
"""By what the file begins with, never by what somebody called it. SVG is text: as an image it could run scripts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Either an image, or JSON that says its `kind`: text, json, table or binary."""

    body: bytes
    content_type: str


class Previews:
    """Law: what is fetched is bounded, and what goes out never runs in a browser. Raises ApiError, StoreAway."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Its own threads: in the loop's they would wait for reads that need a thread there too, and all for each other.
        self._threads = ThreadPoolExecutor(TABLES_AT_ONCE, "stepstream-preview")

    def close(self) -> None:
        """Begin no more of them; what nobody waits for any more ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def of(self, file: File) -> Preview:
        """What there is to see of a file."""
        head = await self._read(file, 0, min(TEXT_BYTES, file.size)) if file.size else b""
        image = _image_type(head)
        if image:
            return Preview(body=await self._image(file, head), content_type=image)
        if head[:4] == b"PAR1" and file.size > 12:
            return _said(await self._parquet(file))
        return _said(_text(file, head))

    async def _image(self, file: File, head: bytes) -> bytes:
        if file.size > IMAGE_BYTES:
            raise ApiError(413, "TOO_LARGE", f"images up to {IMAGE_BYTES >> 20} MiB are shown; download this one")
        return head if len(head) == file.size else await self._read(file, 0, file.size)

    async def _parquet(self, file: File) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        reads = _Reads(loop, lambda start, length: self._read(file, start, length))
        remote = _Remote(file.size, reads.fetch)
        try:
            return await loop.run_in_executor(self._threads, _parquet_table, remote)
        finally:
            reads.end()

    async def _read(self, file: File, start: int, length: int) -> bytes:
        return b"".join([piece async for piece in self._store.read(file.key, start, length)])


class _Reads:
    """Reads of the store for another thread, which must not wait for them once nobody waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read: Callable[[int, int], Coroutine[Any, Any, bytes]]) -> None:
        self._loop = loop
        self._read = read
        self._is_over = False
        self._asked: Future[bytes] | None = None

    def fetch(self, start: int, length: int) -> bytes:
        """In the other thread: wait for these bytes. Raises CancelledError."""
        if self._is_over:
            raise CancelledError
        self._asked = asyncio.run_coroutine_threadsafe(self._read(start, length), self._loop)
        # It may have ended since.
        if self._is_over:
            self._asked.cancel()
        return self._asked.result()

    def end(self) -> None:
        """In the loop: the other thread reads no more."""
        self._is_over = True
        if self._asked is not None:
            self._asked.cancel()


class _Remote(io.RawIOBase):
    """A file in the store as pyarrow wants it, with a bound on what is fetched."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._at = 0
        self._left = PARQUET_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on."""
        length = max(0, self._size - self._at if size < 0 else min(size, self._size - self._at))
        self._left -= length
        if self._left < 0:
            raise ApiError(413, "TOO_LARGE", "the first rows of this file are too large to be shown; download it")
        body: bytes = self._fetch(self._at, length) if length else b""
        self._at += len(body)
        return body


def _parquet_table(remote: _Remote) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.PythonFile(remote, mode="r"), pre_buffer=False)
        groups = _first_groups(file.metadata)
        names = file.schema_arrow.names
        # Asked for by name, those of one name come together; so only where there are too many.
        some = names[:COLUMNS] if len(names) > COLUMNS else None
        chosen = {"columns": some, "row_groups": groups, "use_threads": False}
        batch = next(file.iter_batches(batch_size=ROWS, **chosen), None) if groups else None
        shown = names[:COLUMNS] if batch is None else batch.schema.names[:COLUMNS]
        # By columns: names may occur twice.
        columns = [] if batch is None else [[_scalar(one) for one in column] for column in batch.columns[:COLUMNS]]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ApiError(400, "MALFORMED", f"this Parquet file cannot be read: {error}") from error
    rows = [list(row) for row in zip(*columns, strict=True)]
    return _table(shown, rows, total=file.metadata.num_rows, more_columns=len(names) - len(shown))


def _first_groups(metadata: Any) -> list[int]:
    """The row groups that hold the first rows. Raises ApiError where they unpack to too much."""
    groups: list[int] = []
    rows = size = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.num_rows:
            groups.append(index)
            rows, size = rows + group.num_rows, size + group.total_byte_size
        if rows >= ROWS:
            break
    if size > UNPACKED_BYTES:
        raise ApiError(413, "TOO_LARGE", "the first rows of this file unpack to too much to be shown; download it")
    return groups


def _scalar(scalar: Any) -> Any:
    try:
        return _cell(scalar.as_py())
    except (ValueError, OverflowError, LookupError):
        # A date beyond Python's years, or text that is not UTF-8; what lies in a list or struct has its type shown.
        bare = getattr(scalar, "value", None)
        if isinstance(bare, int):
            return str(bare)
        text = scalar.as_buffer() if hasattr(scalar, "as_buffer") else None
        return f"({scalar.type})" if text is None else text.to_pybytes()[:CELL_CHARS].decode("utf-8", "replace")


def _text(file: File, head: bytes) -> dict[str, Any]:
    whole = len(head) == file.size
    try:
        # A character that was cut at the end is no reason to call a text binary.
        text = head.decode() if whole else head.decode("utf-8", "ignore") if _is_utf8(head) else None
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:
        return {"kind": "binary", "size": file.size}
    name = file.path.lower()
    if name.endswith((".csv", ".tsv")):
        return _csv(text, "\t" if name.endswith(".tsv") else ",", whole=whole)
    if whole and (name.endswith(".json") or "json" in file.content_type):
        found = _json(text, file.size)
        if found is not None:
            return found
    return {"kind": "text", "text": text, "truncated": not whole, "size": file.size}


def _json(text: str, size: int) -> dict[str, Any] | None:
    """None for what is no JSON, or none that can be written again: half a character, or too many levels."""
    try:
        said = {"kind": "json", "value": json.loads(text, parse_constant=str, parse_int=_whole), "size": size}
        orjson.dumps(said)
    except (ValueError, TypeError, RecursionError):
        return None
    return said


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= EXACT_DIGITS else digits


def _is_utf8(head: bytes) -> bool:
    return any(_decodes(head[: len(head) - cut]) for cut in range(4))


def _decodes(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv(text: str, delimiter: str, *, whole: bool) -> dict[str, Any]:
    lines = text if whole else text[: text.rfind("\n") + 1]
    reader = csv.reader(io.StringIO(lines), delimiter=delimiter)
    try:
        rows = [row for _, row in zip(range(ROWS + 1), reader, strict=False)]
        more = not whole or next(reader, None) is not None
    except csv.Error:
        return {"kind": "text", "text": text, "truncated": not whole}
    names = rows[0] if rows else []
    cells = [[_cell(value) for value in row[:COLUMNS]] for row in rows[1:]]
    total = None if more else len(cells)
    return _table(names[:COLUMNS], cells, total=total, more_columns=max(0, len(names) - COLUMNS))


def _table(names: list[str], rows: list[list[Any]], *, total: int | None, more_columns: int) -> dict[str, Any]:
    return {"kind": "table", "columns": names, "rows": rows, "rows_in_all": total, "more_columns": more_columns}


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, bool | int) and abs(value) < 2**53):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    return str(value)[:CELL_CHARS]


def _image_type(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for begins, kind in IMAGES.items() if head.startswith(begins)), None)


def _said(said: dict[str, Any]) -> Preview:
    return Preview(body=orjson.dumps(said), content_type="application/json")
