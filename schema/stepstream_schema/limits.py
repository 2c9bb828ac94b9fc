"""Every bound of the wire format, with its unit in the name and its reason beside it."""

from typing import Final

FRAME_VERSION: Final = 1

MAX_FRAME_BYTES: Final = 8 * 2**20
"""One encoded frame. A frame of 100 keys x 500 steps is about 0.4 MB; this leaves room for 20,000 keys."""

MAX_INFLATED_BYTES: Final = 32 * 2**20
"""All columns of one frame after decompression: what one frame can make a decoder allocate for its columns."""

MAX_REQUEST_BYTES: Final = 16 * 2**20
"""One POST of frames: two of the largest, or hundreds of ordinary ones."""

MAX_FRAMES_PER_REQUEST: Final = 1024
"""Keeps one answer small and one request's decoding short."""

MAX_RECORDS_PER_FRAME: Final = 4096
"""Length of every array in the envelope, so the flat items of one params or tags record are bounded by it too."""

MAX_OBJECTS_PER_FRAME: Final = 65_536
"""Everything that msgpack would build for one frame, counted before it is built: some 6 MB at the very worst."""

MAX_KEYS_PER_FRAME: Final = 65_536
"""Per-layer statistics of the largest models reach some 20,000 keys a step."""

MAX_POINTS_PER_FRAME: Final = 2**20
"""A million points of 8 bytes stay well below MAX_INFLATED_BYTES with steps and times of their own (ragged)."""

MAX_KEY_CHARS: Final = 250
"""MLflow's bound for metric, param and tag keys."""

MAX_PARAM_VALUE_CHARS: Final = 6000
"""MLflow's bound; the client cuts what is longer and says so once."""

MAX_TAG_VALUE_CHARS: Final = 8000
"""MLflow's bound; the client cuts what is longer and says so once."""

MAX_NAME_CHARS: Final = 500
"""Experiment and run names, as MLflow bounds experiment names."""

MAX_DATASET_DIGEST_CHARS: Final = 36
"""MLflow's bound, as are the others for datasets."""

MAX_DATASET_SOURCE_CHARS: Final = 65_535
"""Where a dataset comes from."""

MAX_DATASET_SCHEMA_CHARS: Final = 1_048_575
"""What a dataset's columns are."""

MAX_DATASET_PROFILE_CHARS: Final = 16_777_215
"""What a dataset looks like; in a frame, no more than the frame may have bytes."""

MAX_DATASET_TAG_KEY_CHARS: Final = 255
"""A tag of a run's use of a dataset."""

MAX_DATASET_TAG_VALUE_CHARS: Final = 500
"""Its value."""

MAX_HEARTBEAT_S: Final = 86_400
"""A promise to be heard once a day is the longest that still tells a lost run from a quiet one."""

FIRST_SERVED_WRITER: Final = 2**63 - 2**32
"""Writers from here on are the servers' own: what came by MLflow's protocol, where points that are equal are one."""

CURSOR_WINDOW_FRAMES: Final = 16_384
"""How far beyond a writer's contiguous mark a frame may arrive: 2 KB of bitmap at the very worst."""

MAX_FILES_PER_REQUEST: Final = 256
"""Artifacts that one request may announce, complete or ask for: signing takes about a millisecond each."""

MAX_PARTS_PER_REQUEST: Final = 64
"""Parts of one upload that one request may have signed: 1 to 4 GiB of them at the usual sizes."""

SINGLE_PUT_BYTES: Final = 32 * 2**20
"""Artifacts up to this size are sent whole; larger ones in parts, which can be resumed and sent side by side."""

PART_BYTES: Final = 16 * 2**20
"""One part of a smaller file, or of a stream: above the least of S3 (5 MiB), and half a second of a slow network."""

LARGE_PART_BYTES: Final = 64 * 2**20
"""One part of a large file: a store takes a tenth more of them in the same time, and fewer are to be signed."""

PARTS_WANTED: Final = 8
"""Parts grow with the file only as far as there are so many of them, to be sent side by side and resumed."""

MAX_PARTS: Final = 10_000
"""S3's bound; Azure's is higher. A file of unknown length may so have 156 GiB."""

MAX_ARTIFACT_BYTES: Final = 5 * 2**40
"""S3's bound for one object."""


def part_bytes(size: int | None) -> int:
    """The size of each part but the last of an artifact of `size` bytes, or of unknown size."""
    if size is None:
        return PART_BYTES
    wanted = min(max(PART_BYTES, size // PARTS_WANTED), LARGE_PART_BYTES)
    least = max(wanted, -(-size // MAX_PARTS))
    return -(-least // 2**20) * 2**20
