"""The part of a run's handle that takes files: each is read, and sent in the background."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from stepstream.errors import ArtifactError

if TYPE_CHECKING:
    from stepstream.artifacts.handle import Upload
    from stepstream.artifacts.uploader import Uploader
    from stepstream.settings import Settings


IMAGES_TAG: Final = "mlflow.loggedImages"
"""Says that a run has images by key and step."""


class RunArtifacts:
    """What logs a file returns at once; wait() on what it returns, or for finish()."""

    run_id: str
    _settings: "Settings"

    def _artifacts(self) -> "Uploader":
        raise NotImplementedError

    def set_tag(self, key: str, value: object) -> None:
        """Set a tag; the last value stays."""
        raise NotImplementedError

    def log_artifact(self, local: "str | os.PathLike[str] | IO[Any]", artifact_path: str | None = None) -> "Upload":
        """Send a file to the run's artifacts, in the background; wait() on what it returns, or for finish().

        A path goes into the directory `artifact_path`, under its own name, and may be removed or replaced at once. What
        a file object holds goes to `artifact_path` itself, and is read in the background: close it only when the
        upload is done. Raises ArtifactError for a file or path that cannot be used.
        """
        if isinstance(local, str | os.PathLike):
            return self._artifacts().put_file(Path(local), artifact_path)
        if not artifact_path:
            raise ArtifactError("say under which path a file object is stored: log_artifact(file, 'model/weights.bin')")
        return self._artifacts().put_stream(local, artifact_path)

    def log_artifacts(self, directory: "str | os.PathLike[str]", artifact_path: str | None = None) -> "Upload":
        """Send every file below a directory, in the background; ranks that send theirs make one tree."""
        return self._artifacts().put_directory(Path(directory), artifact_path)

    def log_text(self, text: str, artifact_path: str) -> "Upload":
        """Store a text as an artifact."""
        return self._artifacts().put_bytes(text.encode(), artifact_path)

    def log_dict(self, dictionary: Mapping[str, Any], artifact_path: str) -> "Upload":
        """Store a dictionary as JSON, or as YAML where the path ends so. Raises ArtifactError for what has no form."""
        from stepstream.artifacts import content

        return self._artifacts().put_bytes(content.of_dict(dictionary, artifact_path), artifact_path)

    def log_figure(self, figure: Any, artifact_path: str, *, save_kwargs: Mapping[str, Any] | None = None) -> "Upload":
        """Store a figure of matplotlib or plotly. Raises ArtifactError for anything else."""
        from stepstream.artifacts import content

        return self._artifacts().put_bytes(content.of_figure(figure, artifact_path, save_kwargs), artifact_path)

    def log_image(
        self,
        image: Any,
        artifact_path: str | None = None,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
    ) -> "Upload":
        """Store an image of PIL, or an array: (height, width) or (height, width, 1, 3 or 4), bytes or floats 0 to 1.

        Under a path, or as the image of a key at a step, with a small copy beside it, as MLflow's page shows them;
        `timestamp` is in ms since the epoch. Raises TypeError for both or neither, and ArtifactError.
        """
        from stepstream.artifacts import content

        check_image_arguments(artifact_path, key, step, timestamp)
        if artifact_path is not None:
            return self._artifacts().put_bytes(content.of_image(image, artifact_path), artifact_path)
        at_ms = time.time_ns() // 1_000_000 if timestamp is None else timestamp
        made = content.of_keyed_image(image, str(key), step or 0, at_ms)
        uploads = [self._artifacts().put_bytes(body, path) for path, body in made.items()]
        self.set_tag(IMAGES_TAG, True)
        return uploads[0]

    def download_artifacts(self, path: str = "", destination: "str | os.PathLike[str]" = ".") -> Path:
        """Fetch a file of this run, or everything below a directory; where it lies then. Raises ArtifactError."""
        from stepstream.artifacts.download import download

        return download(self._settings, self.run_id, path, Path(destination))


def check_image_arguments(path: str | None, key: str | None, step: int | None, timestamp: int | None) -> None:
    """Raises TypeError, as MLflow does."""
    if path is None and key is None:
        raise TypeError("say where the image goes: an artifact file, or a key (and a step)")
    if path is not None and (key, step, timestamp) != (None, None, None):
        raise TypeError("key, step and timestamp are of images by step: leave the artifact file out")
