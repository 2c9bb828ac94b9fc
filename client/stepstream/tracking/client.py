"""MLflow's client class, over StepStream's JSON API: what it writes is durable when the call returns."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from stepstream.artifacts import content
from stepstream.artifacts.uploader import Uploader
from stepstream.errors import ArtifactError
from stepstream.notices import Notices
from stepstream.tracking.experiments import Experiments
from stepstream.tracking.models import Models
from stepstream.tracking.registry import Registry
from stepstream.tracking.runs import Runs


class MlflowClient(Experiments, Runs, Models, Registry):
    """Experiments, runs, logged models, the registry, and artifacts of runs. Raises QueryError and ArtifactError."""

    def log_artifact(self, run_id: str, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Store a file, or a directory, and wait for it."""
        local = Path(local_path)
        with self._uploading(run_id) as uploader:
            if local.is_dir():
                inner = f"{artifact_path}/{local.name}" if artifact_path else local.name
                uploader.put_directory(local, inner)
            else:
                uploader.put_file(local, artifact_path)

    def log_artifacts(self, run_id: str, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Store every file below a directory, and wait for them."""
        with self._uploading(run_id) as uploader:
            uploader.put_directory(Path(local_dir), artifact_path)

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Store a text, and wait for it."""
        with self._uploading(run_id) as uploader:
            uploader.put_bytes(text.encode(), artifact_file)

    def log_dict(self, run_id: str, dictionary: Mapping[str, Any], artifact_file: str) -> None:
        """Store a dictionary as JSON, or as YAML where the file is called so, and wait for it."""
        with self._uploading(run_id) as uploader:
            uploader.put_bytes(content.of_dict(dictionary, artifact_file), artifact_file)

    def log_figure(
        self, run_id: str, figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Store a figure of matplotlib or plotly, and wait for it."""
        with self._uploading(run_id) as uploader:
            uploader.put_bytes(content.of_figure(figure, artifact_file, save_kwargs), artifact_file)

    def log_image(self, run_id: str, image: Any, artifact_file: str) -> None:
        """Store an image of PIL, or an array (height, width) or (height, width, 1, 3 or 4), and wait for it."""
        with self._uploading(run_id) as uploader:
            uploader.put_bytes(content.of_image(image, artifact_file), artifact_file)

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str:
        """Fetch a file, or everything below a directory, to `dst_path` or a new directory; where it lies then."""
        from stepstream.artifacts.download import download

        destination = Path(dst_path) if dst_path else Path(mkdtemp(prefix="stepstream-"))
        return str(download(self._settings, run_id, path, destination))

    @contextlib.contextmanager
    def _uploading(self, run_id: str) -> Iterator[Uploader]:
        # A mistyped id must not make a new run.
        self.get_run(run_id)
        uploader = Uploader(self._settings, run_id, None, Notices())
        try:
            yield uploader
            uploader.finish(timeout_s=self._settings.artifact_timeout_s, still_s=self._settings.finish_timeout_s)
            problems = [error for handle in uploader.handles for error in handle.errors]
            left = uploader.left()
        finally:
            uploader.stop()
        if problems or left:
            waiting = f"{', '.join(left[:5])}: not sent in time, `stepstream sync` sends them later" if left else ""
            raise ArtifactError("; ".join([*problems, *([waiting] if waiting else [])]))
