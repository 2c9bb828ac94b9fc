"""Many frames in one request: a msgpack array of binaries, `[frame, frame, ...]`."""

from collections.abc import Iterable

import msgpack

from stepstream_schema import limits, objects
from stepstream_schema.errors import FrameError


def pack(frames: Iterable[bytes]) -> bytes:
    """The body of one POST of frames."""
    data: bytes = msgpack.packb(list(frames))
    return data


def unpack(body: bytes) -> list[bytes]:
    """The frames of one POST, still encoded. Raises FrameError when the body as a whole cannot be read."""
    if len(body) > limits.MAX_REQUEST_BYTES:
        raise FrameError("too_large", f"a request of {len(body)} bytes exceeds {limits.MAX_REQUEST_BYTES}")
    objects.check(body, limits.MAX_FRAMES_PER_REQUEST + 1)
    try:
        frames = msgpack.unpackb(body, max_array_len=limits.MAX_FRAMES_PER_REQUEST, max_map_len=0, max_ext_len=0)
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise FrameError("malformed", f"the request is not an array of frames: {error}") from error
    if not isinstance(frames, list) or not all(isinstance(frame, bytes) for frame in frames):
        raise FrameError("malformed", "the request is not an array of frames")
    return frames
