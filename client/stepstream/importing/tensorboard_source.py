"""The border to the `tensorboard` package, whose own reader reads a folder of event files."""

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stepstream.errors import ConfigurationError, QueryError
from stepstream.importing.keys import key_of
from stepstream.importing.values import Point, SourceExperiment, SourceLoggedModel, SourceModel, SourceRun
from stepstream_schema import limits

EVENTS: Final = "tfevents"
SCALARS: Final = "scalars"
HPARAMS: Final = "hparams"


class TensorboardSource:
    """Law: a folder with event files is one run, under an id that stays when the whole is moved elsewhere."""

    def __init__(self, root: Path, experiment: str) -> None:
        if not root.is_dir():
            raise ConfigurationError(f"{root} is no folder: name the one that TensorBoard's --logdir is given")
        try:
            from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
            from tensorboard.plugins.hparams import plugin_data_pb2
            from tensorboard.util.tensor_util import make_ndarray
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"reading event files needs the package {error.name!r}: pip install 'stepstream[import-tensorboard]'"
            ) from error
        self._load: Any = EventFileLoader
        self._hparams: Any = plugin_data_pb2.HParamsPluginData
        self._number: Any = make_ndarray
        self._root = root
        self._experiment = experiment
        self.left_out = 0
        """Histograms, images, texts and whatever else is no scalar."""

    def experiments(self) -> Iterator[SourceExperiment]:
        """The folder is one."""
        yield SourceExperiment(experiment_id="", name=self._experiment, deleted=False, tags={})

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Each folder with event files below the root, by name."""
        for folder in sorted(_folders(self._root)):
            yield self._run(folder)

    def points(self, run: SourceRun) -> Iterator[Point]:
        """Every scalar, in the order in which it was written."""
        for wall_time, step, value in self._values(self._root / run.artifact_uri):
            if value.metadata.plugin_data.plugin_name != SCALARS:
                self.left_out += value.metadata.plugin_data.plugin_name != HPARAMS
                continue
            number = self._number(value.tensor)
            if number.size == 1:
                yield key_of(value.tag), float(number.item()), round(wall_time * 1000), step

    def files(self, run: SourceRun) -> Iterator[str]:
        """None: event files are what is read."""
        return iter(())

    def fetch(self, run: SourceRun, path: str, destination: Path) -> Path:
        """There is nothing to fetch."""
        raise QueryError(f"event files hold no artifact {path!r}")

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """None."""
        return iter(())

    def model_files(self, model: SourceLoggedModel) -> Iterator[str]:
        """None."""
        return iter(())

    def fetch_model_file(self, model: SourceLoggedModel, path: str, destination: Path) -> Path:
        """There is nothing to fetch."""
        raise QueryError(f"event files hold no model's file {path!r}")

    def models(self) -> Iterator[SourceModel]:
        """None."""
        return iter(())

    def _run(self, folder: Path) -> SourceRun:
        name = folder.relative_to(self._root).as_posix()
        times = [event.wall_time for event in self._events(folder)]
        params: dict[str, str] = {}
        for _, _, value in self._values(folder):
            if value.metadata.plugin_data.plugin_name == HPARAMS:
                content = self._hparams.FromString(value.metadata.plugin_data.content)
                params |= {key_of(key): _text(said) for key, said in content.session_start_info.hparams.items()}
        start = min(times, default=0.0)
        return SourceRun(
            run_id=hashlib.sha256(f"tensorboard {name} {start!r}".encode()).hexdigest()[:32],
            name=(self._root.resolve().name if name == "." else name)[: limits.MAX_NAME_CHARS],
            user="",
            status="FINISHED",
            start_time_ms=round(start * 1000),
            end_time_ms=round(max(times, default=0.0) * 1000),
            deleted=False,
            # Below the root: what points() reads.
            artifact_uri=name,
            params=params,
            tags={},
            latest=[],
            datasets=[],
            version=[(file.name, file.stat().st_size) for file in _files(folder)],
        )

    def _values(self, folder: Path) -> Iterator[tuple[float, int, Any]]:
        for event in self._events(folder):
            for value in event.summary.value:
                yield event.wall_time, event.step, value

    def _events(self, folder: Path) -> Iterator[Any]:
        for file in _files(folder):
            yield from self._load(str(file)).Load()


def _folders(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        if any(EVENTS in name for name in names):
            yield Path(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if EVENTS in path.name and path.is_file())


def _text(said: Any) -> str:
    """A hyperparameter's protobuf value as text, whole numbers without a fraction."""
    kind = said.WhichOneof("kind")
    value = getattr(said, kind) if kind else ""
    whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
    return str(int(value)) if whole else str(value)
