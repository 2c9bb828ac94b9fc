"""What a client announces, checked. Pure."""

import base64
import binascii
import re
from typing import Any, Final
from uuid import UUID

from stepstream_ingest.artifacts.manifest import Entry, checked
from stepstream_ingest.artifacts.upload import Announced
from stepstream_ingest.errors import ApiError
from stepstream_schema import limits

SHA256: Final = re.compile(r"[0-9a-f]{64}")
CONTENT_TYPE: Final = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}(;[ \w.=+\"-]{1,100})?", re.ASCII)
DEFAULT_TYPE: Final = "application/octet-stream"


def announced(owner: UUID, rank: int | None, said: object, *, needs_md5: bool) -> Announced:
    """One file of a request. Raises ApiError."""
    if not isinstance(said, dict):
        raise invalid("each file is an object with path, size, sha256 and logged_at_ms")
    path = said.get("path")
    if not isinstance(path, str):
        raise invalid("path must be text")
    entry = Entry(
        owner=owner,
        path=checked(path),
        size=_size(said.get("size"), path),
        content_type=content_type(said.get("content_type")),
        logged_at_ms=_time(said.get("logged_at_ms"), path),
        rank=rank,
    )
    sha256 = hashed(said.get("sha256"), path)
    if sha256 is not None and entry.size < 0:
        raise invalid(f"{path}: a file whose sha256 is known has a size")
    md5 = _digest(said.get("md5", ""), 16, path)
    if needs_md5 and not md5 and sha256 is not None and entry.size <= limits.SINGLE_PUT_BYTES:
        message = f"{path}: the store of this server checks MD5; say the md5 of a file that is sent whole"
        raise ApiError(400, "MD5_REQUIRED", message)
    return Announced(entry=entry, sha256=sha256, md5=md5)


def parts(said: object) -> list[tuple[int, int, str]]:
    """(number, size, checksum) of the parts that are to be signed. Raises ApiError."""
    if not isinstance(said, list) or not 1 <= len(said) <= limits.MAX_PARTS_PER_REQUEST:
        raise invalid(f"parts is a list of 1 to {limits.MAX_PARTS_PER_REQUEST} parts")
    return [_part(part) for part in said]


def hashed(said: object, path: str) -> bytes | None:
    """A SHA-256 in hexadecimal, or nothing. Raises ApiError."""
    if said is None:
        return None
    if not isinstance(said, str) or not SHA256.fullmatch(said):
        raise invalid(f"{path}: sha256 is 64 hex digits")
    return bytes.fromhex(said)


def content_type(said: object) -> str:
    """A type that is safe to repeat in a header; what is not is plain bytes."""
    return said if isinstance(said, str) and CONTENT_TYPE.fullmatch(said) else DEFAULT_TYPE


def invalid(message: str) -> ApiError:
    """The request cannot be meant."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def _part(said: object) -> tuple[int, int, str]:
    match said:
        case {"number": int(number), "size": int(size), "checksum": str(checksum)}:
            if not 1 <= number <= limits.MAX_PARTS:
                raise invalid(
                    f"part numbers lie between 1 and {limits.MAX_PARTS}; a longer file must have a known size"
                )
            if not 1 <= size <= 5 * 2**30:
                raise invalid("a part has 1 byte to 5 GiB")
            if not checksum:
                raise invalid("each part needs its checksum, in base64")
            return number, size, checksum
    raise invalid("each part is an object with number, size and checksum")


def _size(said: object, path: str) -> int:
    if said is None:
        return -1
    if type(said) is not int or not 0 <= said <= limits.MAX_ARTIFACT_BYTES:
        raise invalid(f"{path}: size is a number of bytes from 0 to {limits.MAX_ARTIFACT_BYTES}")
    return said


def _time(said: object, path: str) -> int:
    if type(said) is not int or not 0 <= said < 2**53:
        raise invalid(f"{path}: logged_at_ms is milliseconds since the epoch")
    return said


def _digest(said: Any, length: int, path: str) -> str:
    if said == "":
        return ""
    try:
        if len(base64.b64decode(said, validate=True)) == length:
            return str(said)
    except (TypeError, ValueError, binascii.Error):
        pass
    raise invalid(f"{path}: md5 is {length} bytes in base64")
