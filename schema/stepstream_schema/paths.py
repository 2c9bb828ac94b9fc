"""The paths of StepStream's own HTTP API."""

from typing import Final

FRAMES: Final = "/v1/frames"
EXPERIMENTS: Final = "/v1/experiments"
RUNS: Final = "/v1/runs"
LOGGED_MODELS: Final = "/v1/logged-models"
REGISTRY: Final = "/v1/registry/models"
MODEL_VERSIONS: Final = "/v1/registry/versions"
OPENAPI: Final = "/v1/openapi.json"
HEALTH: Final = "/health"
"""Whether the process lives."""
READY: Final = "/ready"
"""Whether it should be sent requests."""
VERSION: Final = "/version"
METRICS: Final = "/metrics"
HISTORY: Final = "/v1/history"
GC: Final = "/v1/gc"
ARTIFACT_GC: Final = "/v1/gc/artifacts"
UPLOADS: Final = "/v1/artifacts/uploads"
STORE: Final = "/v1/store"
"""Objects of the embedded store, by signed URLs alone."""

MSGPACK: Final = "application/msgpack"
ARROW: Final = "application/vnd.apache.arrow.stream"


def run(run_id: str) -> str:
    """One run."""
    return f"{RUNS}/{run_id}"


def run_metrics(run_id: str) -> str:
    """The series of one run, each with its summary."""
    return f"{RUNS}/{run_id}/metrics"


def run_history(run_id: str) -> str:
    """The points of one series."""
    return f"{RUNS}/{run_id}/metrics/history"


def run_ranks(run_id: str) -> str:
    """One metric over all ranks."""
    return f"{RUNS}/{run_id}/metrics/ranks"


def run_artifacts(run_id: str) -> str:
    """The artifacts of one run."""
    return f"{RUNS}/{run_id}/artifacts"


def upload(upload_id: str) -> str:
    """One upload under way."""
    return f"{UPLOADS}/{upload_id}"


def lineage(name: str, version: str) -> str:
    """Where a version of a registered model comes from."""
    return f"{REGISTRY}/{name}/versions/{version}/lineage"


def experiment(experiment_id: str) -> str:
    """One experiment."""
    return f"{EXPERIMENTS}/{experiment_id}"


def logged_model(model_id: str) -> str:
    """One logged model."""
    return f"{LOGGED_MODELS}/{model_id}"


def registered_model(name: str) -> str:
    """One registered model; the name is percent-encoded."""
    return f"{REGISTRY}/{name}"


def model_version(name: str, version: str) -> str:
    """One version of a registered model."""
    return f"{REGISTRY}/{name}/versions/{version}"
