"""What makes a hostile file harmless in a browser."""

from typing import Final
from urllib.parse import quote

DOWNLOAD_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=31536000, immutable",
}
"""For bytes that somebody logged: nothing in them runs, and an object never changes."""

ACTIVE_TYPES: Final = ("html", "svg", "xml", "javascript", "ecmascript", "pdf", "flash")
"""What a browser would run or render with scripts; stored as said, but handed out as plain bytes."""


def attachment(filename: str) -> str:
    """A Content-Disposition that saves the file under its name (RFC 6266)."""
    plain = "".join(c if 32 <= ord(c) < 127 and c not in '"\\%;' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def safe_type(content_type: str) -> str:
    """The type that is handed out: of what could run in a browser, only that it is bytes."""
    low = content_type.lower()
    return "application/octet-stream" if any(kind in low for kind in ACTIVE_TYPES) else content_type
