"""Which rank of which life of which run this process is, from what its launcher left in the environment. Pure."""

import hashlib
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, SupportsIndex

from stepstream.errors import ConfigurationError, RunIdentityError
from stepstream.process import ProcessId
from stepstream_schema.attempt import MAX_COUNT, Attempt

RANKS: Final = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
LOCAL_RANKS: Final = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
WORLD_SIZES: Final = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
LOCAL_WORLD_SIZES: Final = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "LOCAL_SIZE")
"""The last is DeepSpeed's."""
LIGHTNING: Final = ("LOCAL_RANK", "NODE_RANK")
"""Beside WORLD_SIZE, which it takes away after the first training."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
BEGUN: Final = "STEPSTREAM_BEGUN_BY"
"""What a process that is alone leaves to those it starts: its pid, when it started, and its runs in turn."""
MAX_BEGUN: Final = 1000
"""Runs that are told: a variable holds 128 KiB, and nobody trains that often before the ranks are there."""
MAX_RANK: Final = 2**31 - 1
"""What a frame can carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    """What the ranks of a job agree on without talking to one another."""

    run_id: str | None
    """32 hex digits; None when this process is alone and may choose."""
    rank: int | None
    local_rank: int | None
    """The rank within its node."""
    world_size: int
    attempt: Attempt


def detect(
    environ: Mapping[str, str], *, launcher: ProcessId, run_id: str | None = None, ordinal: int = 0
) -> JobIdentity:
    """The identity of this process; `ordinal` counts the runs that it has started before.

    Raises ConfigurationError for values that cannot be meant, RunIdentityError when several nodes have nothing to
    agree on.
    """
    rank, world_size = _rank(environ), _world_size(environ)
    return JobIdentity(
        run_id=given(environ, run_id, ordinal) or _derived(environ, launcher, world_size, ordinal),
        rank=rank,
        local_rank=_local_rank(environ),
        world_size=world_size,
        attempt=Attempt(
            _count(environ, "SLURM_RESTART_COUNT"),
            _count(environ, "TORCHELASTIC_RESTART_COUNT"),
            _count(environ, "STEPSTREAM_RESUME"),
        ),
    )


def is_started_again(environ: Mapping[str, str]) -> bool:
    """Whether Lightning starts the script once more for each device of this node, from the one that is rank 0.

    It tells no global rank, nor how many are on a node; with an address that only this node has, they are all on it.
    """
    says_ranks = any(environ.get(name) for name in RANKS)
    return not says_ranks and all(map(environ.get, LIGHTNING)) and environ.get("MASTER_ADDR") in LOOPBACK


def begun(environ: Mapping[str, str], by: ProcessId, run_id: str) -> dict[str, str]:
    """For the environment of a process that is alone, and begins another run.

    A script that Lightning starts from it runs from its beginning: it goes on with the first run, then with the second.
    """
    before = _begun(environ, by)
    return {BEGUN: f"{by.pid} {by.start} {','.join([*before, run_id][:MAX_BEGUN])}"}


def _begun(environ: Mapping[str, str], by: ProcessId) -> list[str]:
    said, _, ids = environ.get(BEGUN, "").rpartition(" ")
    return ids.split(",") if said == f"{by.pid} {by.start}" else []


def launched(environ: Mapping[str, str]) -> dict[str, str]:
    """What a launcher has told this rank of its place: the launcher itself was started without, or with others."""
    names = (*RANKS, *LOCAL_RANKS, *WORLD_SIZES, *LOCAL_WORLD_SIZES)
    return {name: environ[name] for name in names if environ.get(name)}


def normalise(run_id: str, source: str = "run_id") -> str:
    """The 32 lower-case hex digits of a run id, which may be written as a UUID; `source` says who gave it."""
    digits = run_id.strip().lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        raise ConfigurationError(f"{source} must be 32 hex digits, as MLflow writes them, not {run_id!r}")
    return digits


def given(environ: Mapping[str, str], run_id: str | None, ordinal: int = 0) -> str | None:
    """The run that somebody has named, rather than the launcher's. Raises ConfigurationError.

    The environment names the first run of a process. Those that follow are others, the same ones in every process that
    is told the same: each rank's second run is one.
    """
    if run_id:
        return normalise(run_id)
    for name in ("STEPSTREAM_RUN_ID", "MLFLOW_RUN_ID"):
        if environ.get(name):
            first = normalise(environ[name], name)
            return _later(first, ordinal) if ordinal else first
    return None


def given_rank(rank: SupportsIndex) -> int:
    """The rank that a program says it has. Raises ConfigurationError for one that no frame can carry."""
    try:
        number = operator.index(rank)
    except TypeError:
        raise ConfigurationError(f"rank must be a whole number, not {rank!r}") from None
    if not 0 <= number <= MAX_RANK:
        raise ConfigurationError(f"rank must lie between 0 and {MAX_RANK}, not {number}")
    return number


def _derived(environ: Mapping[str, str], launcher: ProcessId, world_size: int, ordinal: int) -> str | None:
    if world_size <= 1 and not is_started_again(environ):
        return None
    if is_started_again(environ):
        return _of_first_script(environ, launcher, ordinal)
    return _later(_agreed(environ, launcher, world_size), ordinal)


def _of_first_script(environ: Mapping[str, str], first: ProcessId, ordinal: int) -> str:
    ids = _begun(environ, first)
    if ordinal < len(ids):
        return normalise(ids[ordinal], BEGUN)
    return _later(ids[0] if ids else _of_launcher(first), ordinal)


def _later(source: str, ordinal: int) -> str:
    """The id of the run that comes after so many others of the same source."""
    said = f"{source} run {ordinal}" if ordinal else source
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _agreed(environ: Mapping[str, str], launcher: ProcessId, world_size: int) -> str:
    """Something that is the same on every rank of this job and on no other job's."""
    if environ.get("SLURM_JOB_ID") and _in_slurm_step(environ):
        return f"slurm {environ.get('SLURM_CLUSTER_NAME', '')} {environ['SLURM_JOB_ID']} {environ['SLURM_STEP_ID']}"
    elastic = environ.get("TORCHELASTIC_RUN_ID", "none")
    if elastic not in ("", "none"):
        return f"torchelastic {elastic}"
    if _local_world_size(environ) == world_size:
        return _of_launcher(launcher)
    raise RunIdentityError(
        f"this job has {world_size} ranks, seemingly on several nodes, and nothing that tells them which run they "
        "share. Set STEPSTREAM_RUN_ID to the same 32 hex digits for every rank (for example from `uuidgen`), start the "
        "ranks with srun, or give torchrun an --rdzv-id."
    )


def _of_launcher(launcher: ProcessId) -> str:
    return f"launcher {launcher.host} {launcher.pid} {launcher.start} {launcher.boot_id}"


def _in_slurm_step(environ: Mapping[str, str]) -> bool:
    """Whether srun started this very process: a batch script's own process has a job, but no step to share."""
    return bool(environ.get("SLURM_STEP_ID")) and "SLURM_PROCID" in environ and _int(environ, "SLURM_NTASKS", 1) > 1


def _rank(environ: Mapping[str, str]) -> int | None:
    for name in RANKS:
        if environ.get(name):
            return _count(environ, name, most=MAX_RANK)
    if _in_slurm_step(environ):
        return _count(environ, "SLURM_PROCID", most=MAX_RANK)
    return _count(environ, "LOCAL_RANK", most=MAX_RANK) if is_started_again(environ) else None


def _local_rank(environ: Mapping[str, str]) -> int | None:
    for name in LOCAL_RANKS:
        if environ.get(name):
            return _count(environ, name, most=MAX_RANK)
    return _count(environ, "SLURM_LOCALID", most=MAX_RANK) if _in_slurm_step(environ) else None


def _world_size(environ: Mapping[str, str]) -> int:
    for name in WORLD_SIZES:
        if environ.get(name):
            return _int(environ, name, 1)
    return _int(environ, "SLURM_NTASKS", 1) if _in_slurm_step(environ) else 1


def _local_world_size(environ: Mapping[str, str]) -> int:
    for name in LOCAL_WORLD_SIZES:
        if environ.get(name):
            return _int(environ, name, 0)
    return 0


def _count(environ: Mapping[str, str], name: str, most: int = MAX_COUNT) -> int:
    value = _int(environ, name, 0)
    if not 0 <= value <= most:
        raise ConfigurationError(f"{name} must lie between 0 and {most}, not {value}")
    return value


def _int(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    try:
        return int(text) if text else default
    except ValueError:
        raise ConfigurationError(f"{name} must be a whole number, not {text!r}") from None
