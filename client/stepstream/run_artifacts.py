"""The part of a run's handle that takes files: each is read, and sent in the background."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stepstream.errors import ArtifactError

if TYPE_CHECKING:
    from stepstream.artifacts.handle import Upload
    from stepstream.artifacts.uploader import Uploader
    from stepstream.notices import Notices
    from stepstream.settings import Settings


class RunArtifacts(ABC):
    """What logs a file returns at once; wait() on what it returns, or for finish()."""

    run_id: str
    _settings: "Settings"

    @abstractmethod
    def _artifacts(self) -> "Uploader":
        """What sends them. Raises ArtifactError once the run is finished."""

    @abstractmethod
    def set_tag(self, key: str, value: object) -> None:
        """Set a tag; the last value stays."""

    def log_artifact(self, local: "str | os.PathLike[str] | IO[Any]", artifact_path: str | None = None) -> "Upload":
        """Send a file to the run's artifacts, in the background; wait() on what it returns, or for finish().

        A path goes into the directory `artifact_path`, under its own name, and may be removed or replaced at once. What
        a file object holds goes to `artifact_path` itself, and is read in the background: close it only when the
        upload is done. Raises ArtifactError for a file or path that cannot be used.
        """
        if isinstance(local, str | os.PathLike):
            with _as_artifact_error():
                return self._artifacts().put_file(Path(local), artifact_path)
        if not artifact_path:
            raise ArtifactError("say under which path a file object is stored: log_artifact(file, 'model/weights.bin')")
        return self._artifacts().put_stream(local, artifact_path)

    def log_artifacts(self, directory: "str | os.PathLike[str]", artifact_path: str | None = None) -> "Upload":
        """Send every file below a directory, in the background; ranks that send theirs make one tree.

        Raises ArtifactError for a directory or path that cannot be used.
        """
        with _as_artifact_error():
            return self._artifacts().put_directory(Path(directory), artifact_path)

    def log_text(self, text: str, artifact_path: str) -> "Upload":
        """Store a text as an artifact, in UTF-8."""
        return self._artifacts().put_bytes(str(text).encode(errors="replace"), artifact_path)

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

        made = content.of_images(image, artifact_path, key, step, timestamp)
        uploads = [self._artifacts().put_bytes(body, path) for path, body in made.items()]
        if key is not None:
            self.set_tag(content.IMAGES_TAG, True)
        return uploads[0]

    def download_artifacts(self, path: str = "", destination: "str | os.PathLike[str]" = ".") -> Path:
        """Fetch a file of this run, or everything below a directory; where it lies then. Raises ArtifactError."""
        from stepstream.artifacts.download import download

        with _as_artifact_error():
            return download(self._settings, self.run_id, path, Path(destination))


@contextlib.contextmanager
def _as_artifact_error() -> Iterator[None]:
    """What a disk has to say, such as of a name that is too long or of a file server that is gone."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(str(error)) from error


def new_uploader(settings: "Settings", run_id: str, rank: int | None, notices: "Notices") -> "Uploader":
    """What sends the files of a run. Raises ArtifactError where it cannot be loaded, as in the middle of loading it."""
    try:
        from stepstream.artifacts.uploader import Uploader
    except (ImportError, KeyError) as error:
        raise ArtifactError(f"what sends files is not loaded ({error!r}); log it again") from error
    return Uploader(settings, run_id, rank, notices)
