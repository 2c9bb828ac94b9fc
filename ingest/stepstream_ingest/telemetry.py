"""What /metrics shows. With several workers the counts of all are added (prometheus_client's multiprocess mode)."""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

REGISTRY: Final = CollectorRegistry()

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The client library's name for the directory where the workers of a server put their counts."""

POINTS: Final = Counter("stepstream_points_stored", "Metric points committed", registry=REGISTRY)
FRAMES: Final = Counter("stepstream_frames", "Frames answered, by outcome", ["outcome"], registry=REGISTRY)
REFUSED: Final = Counter("stepstream_frames_refused", "Frames refused, by reason", ["reason"], registry=REGISTRY)
BYTES: Final = Counter("stepstream_frame_bytes_stored", "Bytes of committed frames", registry=REGISTRY)
ANSWERS: Final = Counter(
    "stepstream_requests",
    "Requests, by the status of their answer; 499: nobody waited for it",
    ["status"],
    registry=REGISTRY,
)
REQUESTS_TURNED_AWAY: Final = Counter(
    "stepstream_requests_turned_away", "Requests not admitted, by reason", ["reason"], registry=REGISTRY
)
QUEUE_BYTES: Final = Gauge(
    "stepstream_queue_bytes", "Bytes admitted and not yet committed", multiprocess_mode="livesum", registry=REGISTRY
)
QUEUE_REQUESTS: Final = Gauge(
    "stepstream_queue_requests",
    "Requests admitted and not yet committed",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
COMMIT_SECONDS: Final = Histogram(
    "stepstream_commit_seconds",
    "Time of one group commit",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
    registry=REGISTRY,
)
GROUP_FRAMES: Final = Histogram(
    "stepstream_group_frames",
    "Frames in one group commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    registry=REGISTRY,
)
RUNS_LOST: Final = Counter("stepstream_runs_lost", "Runs marked failed because they fell silent", registry=REGISTRY)
ARTIFACTS: Final = Counter("stepstream_artifacts", "Artifacts uploaded and listed", registry=REGISTRY)
ARTIFACT_BYTES: Final = Counter("stepstream_artifact_bytes", "Bytes of uploaded artifacts", registry=REGISTRY)
ARTIFACTS_REUSED: Final = Counter(
    "stepstream_artifacts_reused", "Artifacts listed without sending them again", registry=REGISTRY
)
ARTIFACTS_REFUSED: Final = Counter(
    "stepstream_artifacts_refused", "Uploads that were not what was announced", registry=REGISTRY
)
BACKLOG_FRAMES: Final = Gauge(
    "stepstream_backlog_frames", "Frames not yet compacted", multiprocess_mode="mostrecent", registry=REGISTRY
)
BACKLOG_POINTS: Final = Gauge(
    "stepstream_backlog_points", "Points not yet compacted", multiprocess_mode="mostrecent", registry=REGISTRY
)
BACKLOG_BYTES: Final = Gauge(
    "stepstream_backlog_bytes", "Frame bytes not yet compacted", multiprocess_mode="mostrecent", registry=REGISTRY
)
COMPACTED_POINTS: Final = Counter("stepstream_compacted_points", "Points moved into chunks", registry=REGISTRY)
COMPACTED_FRAMES: Final = Counter("stepstream_compacted_frames", "Frames moved into chunks", registry=REGISTRY)
TIDIED_CHUNKS: Final = Counter("stepstream_tidied_chunks", "Chunks merged into others", registry=REGISTRY)
COMPACTION_FAILURES: Final = Counter(
    "stepstream_compaction_failures", "Passes that failed by a defect", registry=REGISTRY
)
BACKGROUND_FAILURES: Final = Counter(
    "stepstream_background_failures", "Times that silent runs or old points could not be looked for", registry=REGISTRY
)
COMPACTION_SECONDS: Final = Histogram(
    "stepstream_compaction_seconds",
    "Time of one pass of compaction",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
    registry=REGISTRY,
)


_answers: Final[dict[int, Counter]] = {}


def count_answer(status: int) -> None:
    """One request was answered."""
    # Looking a label up takes several microseconds, of each request.
    counter = _answers.get(status)
    if counter is None:
        counter = _answers[status] = ANSWERS.labels(status)
    counter.inc()


def forget(pid: int) -> None:
    """A worker has ended: what it had admitted and not committed when it was killed does not wait for ever."""
    if SHARED in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def forget_others() -> None:
    """The same, of workers whose parent was killed: those that were not killed with it drain, and end in moments."""
    if SHARED in os.environ:
        for file in Path(os.environ[SHARED]).glob("gauge_live*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if pid != os.getpid():
                forget(pid)


def exposition() -> bytes:
    """Prometheus text, of every worker."""
    if SHARED not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
