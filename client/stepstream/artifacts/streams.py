"""File objects that are logged: how long they may keep somebody waiting, and what of them is in memory."""

import io
from typing import IO, Any, Final

from stepstream.artifacts.source import StreamSource
from stepstream.errors import ArtifactError

CHARACTER_BYTES: Final = 4
"""What io.StringIO takes for each."""


def is_seekable(file: IO[Any]) -> bool:
    """Whether reading it cannot wait for somebody: a pipe may never end. Raises ArtifactError where it is closed."""
    seekable = getattr(file, "seekable", None)
    try:
        return bool(seekable is not None and seekable())
    except ValueError as error:
        raise ArtifactError(f"the stream cannot be read: {error}") from error


def in_memory(file: IO[Any]) -> int:
    """Bytes that it keeps in memory for as long as somebody has it; 0 where they lie elsewhere."""
    if isinstance(file, io.BytesIO):
        with file.getbuffer() as all_of_it:
            return all_of_it.nbytes
    if isinstance(file, io.StringIO):
        at = file.tell()
        characters = file.seek(0, io.SEEK_END)
        file.seek(at)
        return CHARACTER_BYTES * characters
    return 0


def short(file: IO[Any], most: int) -> bytes | None:
    """All that it holds from here on; None, and it stands where it stood, where that is more than `most` bytes.

    None, too, where it cannot say where it stands. Raises what the file object does.
    """
    try:
        at = file.tell()
    except (OSError, AttributeError):
        return None
    source = StreamSource(file)
    if not source.fill(most, lambda: None):
        return bytes(source.next_part(most, lambda: None))
    file.seek(at)
    return None


def rest(file: IO[Any]) -> bytes:
    """All that it holds from here on, of whatever length; of io.BytesIO without a copy."""
    found = file.read()
    return found.encode() if isinstance(found, str) else bytes(found)
