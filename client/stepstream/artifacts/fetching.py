"""Artifacts by the names of `mlflow.artifacts`: fetched, listed, read."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from stepstream.entities import FileInfo
from stepstream.errors import ConfigurationError
from stepstream.tracking.client import MlflowClient

OF_RUN: Final = re.compile(r"(?:runs:/+|mlflow-artifacts:/+\d+/)([0-9a-f]{32})(?:/artifacts)?(?:/(.*))?", re.DOTALL)


def download_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    dst_path: str | None = None,
    tracking_uri: str | None = None,
) -> str:
    """Fetch what runs:/<run id>/<path> means, or a path of a run; where it lies then. Raises ArtifactError."""
    run, path = _place(artifact_uri, run_id, artifact_path)
    return MlflowClient(tracking_uri).download_artifacts(run, path, dst_path)


def list_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    tracking_uri: str | None = None,
) -> list[FileInfo]:
    """What lies in a directory."""
    run, path = _place(artifact_uri, run_id, artifact_path)
    return MlflowClient(tracking_uri).list_artifacts(run, path)


def load_text(artifact_uri: str) -> str:
    """A text."""
    with TemporaryDirectory(prefix="stepstream-") as directory:
        return Path(download_artifacts(artifact_uri, dst_path=directory)).read_text(encoding="utf-8")


def load_dict(artifact_uri: str) -> dict[str, Any]:
    """A dictionary that was stored as JSON. Raises ValueError for a text that is none."""
    found: dict[str, Any] = json.loads(load_text(artifact_uri))
    return found


def _place(artifact_uri: str | None, run_id: str | None, artifact_path: str | None) -> tuple[str, str]:
    if (artifact_uri is None) == (run_id is None):
        raise ConfigurationError("say artifact_uri, or run_id with an artifact_path")
    if run_id is not None:
        return run_id, artifact_path or ""
    match = OF_RUN.fullmatch(artifact_uri or "")
    if match is None:
        raise ConfigurationError(f"{artifact_uri!r} is no artifact of a run: say runs:/<run id>/<path>")
    return match[1], match[2] or ""
