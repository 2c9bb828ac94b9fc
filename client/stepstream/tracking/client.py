"""MLflow's client class, over StepStream's JSON API: what it writes is durable when the call returns."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import IO, TYPE_CHECKING, Any, Final

from stepstream.artifacts import content, tables
from stepstream.artifacts.uploader import Uploader
from stepstream.entities import Run
from stepstream.errors import ArtifactError
from stepstream.notices import Notices
from stepstream.tracking.experiments import Experiments
from stepstream.tracking.models import Models
from stepstream.tracking.registry import Registry
from stepstream.tracking.runs import Runs

if TYPE_CHECKING:
    import pandas

TABLES_TAG: Final = "mlflow.loggedArtifacts"
"""In which a run lists its tables, as JSON."""


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

    def log_image(
        self,
        run_id: str,
        image: Any,
        artifact_file: str | None = None,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,
    ) -> None:
        """Store an image of PIL, or an array (height, width) or (height, width, 1, 3 or 4), and wait for it.

        As a file, or as the image of a key at a step. Raises TypeError for both or neither.
        """
        made = content.of_images(image, artifact_file, key, step, timestamp)
        with self._uploading(run_id) as uploader:
            for path, body in made.items():
                uploader.put_bytes(body, path)
        if key is not None:
            self.set_tag(run_id, content.IMAGES_TAG, True)

    def log_stream(self, run_id: str, stream: IO[bytes], artifact_file: str) -> None:
        """Store what a binary file object holds, and wait for it."""
        with self._uploading(run_id) as uploader:
            uploader.put_stream(stream, artifact_file)

    def log_table(self, run_id: str, data: Any, artifact_file: str) -> None:
        """Append rows to a table that is stored as an artifact, and wait for it; two that do so at once may lose rows.

        `data` is a pandas table, or a mapping of columns. The run's tag mlflow.loggedArtifacts lists its tables.
        """
        tables.check_path(artifact_file)
        tags = self.get_run(run_id).data.tags
        listed = json.loads(tags.get(TABLES_TAG, "[]"))
        entry = {"path": artifact_file, "type": "table"}
        before = self._stored(run_id, artifact_file) if entry in listed else None
        with self._uploading(run_id) as uploader:
            uploader.put_bytes(tables.appended(before, data, artifact_file), artifact_file)
        if entry not in listed:
            self.set_tag(run_id, TABLES_TAG, json.dumps([*listed, entry]))

    def load_table(
        self,
        experiment_id: str,
        artifact_file: str,
        run_ids: Sequence[str] | None = None,
        extra_columns: Sequence[str] | None = None,
    ) -> "pandas.DataFrame":
        """Rows that log_table has stored under this name, in these runs or in all of the experiment, the newest first.

        Raises ArtifactError where no run has such a table.
        """
        import pandas

        from stepstream.table import of_runs

        found = list(self._with_table(experiment_id, artifact_file, run_ids))
        if not found:
            raise ArtifactError(f"no run of this question has a table {artifact_file!r}")
        parts = []
        for run in found:
            rows = tables.loaded(self._stored(run.info.run_id, artifact_file), artifact_file)
            said = of_runs([run])
            parts.append(
                rows.assign(**{name: said[name].iloc[0] if name in said else None for name in extra_columns or ()})
            )
        return pandas.concat(parts, ignore_index=True)

    def _with_table(self, experiment_id: str, artifact_file: str, run_ids: Sequence[str] | None) -> Iterator[Run]:
        entry = {"path": artifact_file, "type": "table"}
        filter_string = f"tags.`{TABLES_TAG}` IS NOT NULL"
        if run_ids:
            filter_string += f" AND attributes.run_id IN ({', '.join(repr(str(one)) for one in run_ids)})"
        token = None
        while True:
            page = self.search_runs([experiment_id], filter_string, page_token=token)
            yield from (run for run in page if entry in json.loads(run.data.tags[TABLES_TAG]))
            token = page.token
            if not token:
                return

    def _stored(self, run_id: str, path: str) -> bytes:
        with TemporaryDirectory(prefix="stepstream-") as scratch:
            return Path(self.download_artifacts(run_id, path, scratch)).read_bytes()

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
            problems = [*uploader.failed(), *uploader.unsaved()]
            left = uploader.left()
        finally:
            uploader.stop()
        if problems or left:
            waiting = f"{', '.join(left[:5])}: not sent in time, `stepstream sync` sends them later" if left else ""
            raise ArtifactError("; ".join([*problems, *([waiting] if waiting else [])]))
