"""A folder of TensorBoard's as a source."""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stepstream.errors import ConfigurationError, QueryError
from stepstream.importing import event_folders
from stepstream.importing.event_file import EventFile, Tensorboard
from stepstream.importing.keys import Keys
from stepstream.importing.values import Point, SourceExperiment, SourceLoggedModel, SourceModel, SourceRun
from stepstream_schema import limits

SCALARS: Final = "scalars"
HPARAMS: Final = "hparams"
LAST_MS: Final = 253_402_300_799_999
"""The year 9999 ends. A clock that says more counts something else than seconds."""


class TensorboardSource:
    """Law: a folder with event files is one run, under an id that stays when the whole is moved elsewhere."""

    def __init__(self, root: Path, experiment: str) -> None:
        if not root.is_dir():
            raise ConfigurationError(f"{root} is no folder: name the one that TensorBoard's --logdir is given")
        self._tensorboard = Tensorboard()
        self._root = root
        self._experiment = experiment
        self.problems: list[str] = []
        """What could not be read."""
        self._folders = sorted(event_folders.folders(root, self._unread))
        if not self._folders:
            hidden = "".join(f"; {problem}" for problem in self.problems)
            raise ConfigurationError(
                f"{root} holds no event files: name the folder that TensorBoard's --logdir is given{hidden}"
            )
        self.left_out = 0
        """Histograms, images, texts and whatever else is no scalar."""
        self.odd_times = 0
        """Points whose clock said what is no time."""
        self.marked: dict[str, str] = {}
        """Names whose plain key another of the same run had, and their keys."""

    def experiments(self) -> Iterator[SourceExperiment]:
        """The folder is one."""
        yield SourceExperiment(experiment_id="", name=self._experiment, deleted=False, tags={})

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Each folder with event files below the root, by name."""
        for folder in self._folders:
            run = self._run(folder)
            if run is not None:
                yield run

    def points(self, run: SourceRun) -> Iterator[Point]:
        """Every scalar, in the order in which it was written; what has no time has the one of what stands before it."""
        keys = Keys()
        for name, _ in run.version:
            file = EventFile(self._root / run.artifact_uri / name, self._tensorboard)
            time_ms = 0
            try:
                for event in file.events():
                    own_ms = _ms(event.wall_time)
                    time_ms = time_ms if own_ms is None else own_ms
                    for value in event.summary.value:
                        if (number := self._number(value)) is not None:
                            self.odd_times += own_ms is None
                            yield keys.of(value.tag), number, time_ms, event.step
            except OSError as error:
                # It could be read a moment ago: a run that misses points must not pass for complete.
                raise QueryError(
                    f"{error}. What was taken so far stays; the same command goes on from there"
                ) from error
        self.marked |= keys.marked

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

    def _run(self, folder: Path) -> SourceRun | None:
        """None where nothing can be read."""
        name = folder.relative_to(self._root).as_posix()
        # Not the earliest: one that is written later may say that it is earlier.
        first: float | None = None
        times_ms: list[int] = []
        keys = Keys()
        params: dict[str, str] = {}
        version: list[tuple[str, int]] = []
        try:
            files = event_folders.files(folder)
        except OSError as error:
            self._unread(error)
            return None
        for index, file in enumerate(EventFile(path, self._tensorboard) for path in files):
            try:
                # Before it is read: what is written to it since is for the next import.
                size = file.path.stat().st_size
                for event in file.events():
                    first = event.wall_time if first is None else first
                    own_ms = _ms(event.wall_time)
                    times_ms += [] if own_ms is None else [own_ms]
                    for value in event.summary.value:
                        params |= self._params(value, keys)
            except OSError as error:
                self._unread(error)
                if index == 0:
                    self.problems.append(f"{folder} was left out: which run it is, only its first file says")
                    return None
                continue
            version.append((file.path.name, size))
            self.problems += [file.problem] if file.problem else []
        if first is None:
            self.problems.append(f"{folder}: there are no events in it")
            return None
        self.marked |= keys.marked
        return SourceRun(
            run_id=hashlib.sha256(f"tensorboard {name} {first!r}".encode()).hexdigest()[:32],
            name=(self._root.resolve().name if name == "." else name)[: limits.MAX_NAME_CHARS],
            user="",
            status="FINISHED",
            start_time_ms=min(times_ms, default=0),
            end_time_ms=max(times_ms, default=0),
            deleted=False,
            # Below the root: what points() reads.
            artifact_uri=name,
            params=params,
            tags={},
            latest=[],
            datasets=[],
            version=version,
        )

    def _params(self, value: Any, keys: Keys) -> dict[str, str]:
        """Hyperparameters, where that is what is said."""
        if value.metadata.plugin_data.plugin_name != HPARAMS:
            return {}
        said = self._tensorboard.hparams(value.metadata.plugin_data.content)
        return {keys.of(key): _text(one) for key, one in sorted(said.session_start_info.hparams.items())}

    def _number(self, value: Any) -> float | None:
        """None, and counted, for what is no scalar."""
        plugin = value.metadata.plugin_data.plugin_name
        if plugin == SCALARS:
            number = self._tensorboard.array(value.tensor)
            if number.size == 1:
                return float(number.item())
        self.left_out += plugin != HPARAMS
        return None

    def _unread(self, error: OSError) -> None:
        self.problems.append(f"{error.filename}: {error.strerror}")


def _ms(wall_time: float) -> int | None:
    """None for what is no time."""
    return round(wall_time * 1000) if 0 <= wall_time * 1000 <= LAST_MS else None


def _text(said: Any) -> str:
    """A hyperparameter's protobuf value as text, whole numbers without a fraction."""
    kind = said.WhichOneof("kind")
    value = getattr(said, kind) if kind else ""
    whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
    return str(int(value)) if whole else str(value)
