"""What the wire format raises.

FrameError      the bytes are not a frame of this format; nothing of it may be stored. `code` is stable and
                goes to the sender and into the server's counters; `message` is for people.
"""

from typing import Literal, TypeAlias

FrameErrorCode: TypeAlias = Literal[
    "malformed",  # not msgpack, wrong shape, wrong type, damaged or truncated columns
    "version",  # a format version this decoder does not know
    "too_large",  # a stated limit is exceeded, before or after decompression
    "unknown_record",  # a record kind that must be understood and is not
    "invalid",  # well-formed, but a value is not allowed: an empty key, a key with NUL, a bad status
]


class FrameError(ValueError):
    """Bytes that are not a valid frame, or a frame that may not be encoded."""

    def __init__(self, code: FrameErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: FrameErrorCode = code
        self.message = message
