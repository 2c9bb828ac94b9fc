"""What a frame can carry: one frozen value for each kind of record.

A kind below OPTIONAL_KINDS that a decoder does not know refuses the frame (`unknown_record`): it may change what the
rest means. A kind at or above it is kept in the stored frame, and reported as `Unknown`, for a later version to read.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from stepstream_schema import limits
from stepstream_schema.columns import Float64s, Int64s

START: Final = 1
MATRIX: Final = 2
RAGGED: Final = 3
PARAMS: Final = 4
TAGS: Final = 5
STATUS: Final = 6
HEARTBEAT: Final = 7
DATASET: Final = 8
OPTIONAL_KINDS: Final = 64

DATASET_TEXTS: Final = {
    "name": limits.MAX_NAME_CHARS,
    "digest": limits.MAX_DATASET_DIGEST_CHARS,
    "source_type": limits.MAX_NAME_CHARS,
    "source": limits.MAX_DATASET_SOURCE_CHARS,
    "schema": limits.MAX_DATASET_SCHEMA_CHARS,
    "profile": limits.MAX_DATASET_PROFILE_CHARS,
}
"""What is said of a dataset, in this order, and how many characters each may have."""

RunStatus: TypeAlias = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
RUN_STATUSES: Final[frozenset[str]] = frozenset(get_args(RunStatus))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The birth of a run, sent by every writer in its first frame: the first to commit names the run."""

    experiment: str
    """The experiment's name; it is created when it does not exist."""
    name: str
    """The run's name for people."""
    time_ms: int
    """Start of the run, ms since the epoch, UTC."""
    user: str = ""
    """Who started it."""
    heartbeat_s: int = 0
    """How often the writer promises to be heard, in seconds; 0 makes no promise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matrix:
    """Metrics logged together: every key has a value at every step."""

    keys: tuple[str, ...]
    """k distinct names."""
    steps: Int64s
    """shape (n,): any order, repeats allowed."""
    times_ms: Int64s
    """shape (n,): ms since the epoch, UTC."""
    values: Float64s
    """shape (k, n)."""

    @property
    def points(self) -> int:
        """How many points it holds."""
        return self.values.size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ragged:
    """Metrics logged apart: every key has steps of its own, one key's points after the other's."""

    keys: tuple[str, ...]
    """k distinct names."""
    counts: Int64s
    """shape (k,): how many points each key has, at least one."""
    steps: Int64s
    """shape (sum of counts,)."""
    times_ms: Int64s
    """shape (sum of counts,): ms since the epoch, UTC."""
    values: Float64s
    """shape (sum of counts,)."""

    @property
    def points(self) -> int:
        """How many points it holds."""
        return self.values.size

    @property
    def offsets(self) -> Int64s:
        """shape (k,): where each key's points begin."""
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Parameters; the first value that is committed stays."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """Tags; the last by (event time, writer, sequence number) stays. A value of None removes the tag."""

    items: tuple[tuple[str, str | None, int], ...]
    """(key, value, event time in ms since the epoch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The writer says how the run stands."""

    status: RunStatus
    time_ms: int
    """When it came to stand so, ms since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The writer lives and has nothing else to say."""

    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What the run has read. Law: a dataset is known by name and digest; the first that is said of it stays."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str
    tags: tuple[tuple[str, str], ...]
    """Of this run's use, such as mlflow.data.context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """An optional record of a later version; its content is kept with the frame."""

    kind: int


Metrics: TypeAlias = Matrix | Ragged
Record: TypeAlias = Start | Matrix | Ragged | Params | Tags | Status | Heartbeat | Dataset | Unknown
