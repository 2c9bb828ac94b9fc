"""Folders of W&B's files as a source."""

import functools
import hashlib
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepstream.errors import ArtifactError, ConfigurationError, QueryError
from stepstream.importing import wandb_log
from stepstream.importing.keys import Keys
from stepstream.importing.values import Point, SourceExperiment, SourceLoggedModel, SourceModel, SourceRun
from stepstream.importing.wandb_log import Log, Printers
from stepstream.importing.wandb_run import Head, Histories

LOG: Final = re.compile(r"run-.*\.wandb")
FOLDER: Final = re.compile(r"(offline-)?run-.*")
FILES: Final = "files"
NO_PROJECT: Final = "uncategorized"
"""As W&B calls it."""
AT_ONCE: Final = 2
"""Files that are read at a time to learn what runs there are: one is printed while what another said is understood."""
KEPT_BYTES: Final = 128 * 2**20
"""Of memory for what files said when they were read first, compressed; beyond it they are printed once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a run; a run that was resumed offline has several."""

    log: Log
    size: int
    """Before it was read: what is written to it since is for the next import."""
    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run and its files, the oldest first."""

    experiment: str
    run: SourceRun
    parts: Sequence[Part]


class WandbSource:
    """Law: all files of one W&B run are one run, under an id that stays when they are moved elsewhere or grow."""

    def __init__(self, root: Path, experiment: str | None, progress: Callable[[int, int], None]) -> None:
        wandb_log.check()
        self.problems: list[str] = []
        """What could not be read."""
        printers = Printers()
        self._logs = [Log(file, printers) for file in sorted(self._find(root))]
        if not self._logs:
            raise ConfigurationError(f"{root} holds no run-*.wandb file: name W&B's folder, one of a run, or its file")
        self._experiment = experiment
        self._progress = progress
        self._lock = threading.Lock()
        self._kept_bytes = 0
        self.left_out = 0
        """Texts, images, tables and whatever else is no number."""
        self.artifacts = 0
        """Versions of W&B's artifacts, whose files are elsewhere."""
        self.marked: dict[str, str] = {}
        """Names whose plain key another of the same run had, and their keys."""

    def experiments(self) -> Iterator[SourceExperiment]:
        """One for each project, or the one that was named."""
        for name in sorted({found.experiment for found in self._found.values()}):
            yield SourceExperiment(experiment_id=name, name=name, deleted=False, tags={})

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Its runs, the oldest first."""
        for found in self._found.values():
            if found.experiment == experiment.name:
                yield found.run

    def points(self, run: SourceRun) -> Iterator[Point]:
        """Histories, what the machine was measured to do, and last what only the summary says."""
        histories = Histories(run.start_time_ms)
        for part in self._found[run.run_id].parts:
            histories.next_part()
            known = part.log.problem
            for kind, said in part.log.records():
                yield from histories.take(kind, said)
            if part.log.problem != known:
                # It could be read a moment ago: a run that misses points must not pass for complete.
                raise QueryError(
                    f"{part.log.problem}. What was taken so far stays; the same command goes on from there"
                )
        yield from histories.rest()
        self.marked |= histories.keys.marked
        self.left_out += histories.left_out
        self.artifacts += histories.artifacts

    def files(self, run: SourceRun) -> Iterator[str]:
        """What W&B keeps in the folder `files`, its own of requirements and output among them."""
        parts = self._found[run.run_id].parts
        for path in sorted({path for part in parts for path in self._listed(part)}):
            if _place(parts, path) is None:
                self.problems.append(f"file {path} of run {run.name!r} was left out: it leads to what is not there")
            else:
                yield path

    def fetch(self, run: SourceRun, path: str, destination: Path) -> Path:
        """It is a local file already. Raises ArtifactError for one that is gone."""
        place = _place(self._found[run.run_id].parts, path)
        if place is None:
            raise ArtifactError("it was removed meanwhile")
        return place

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """None."""
        return iter(())

    def model_files(self, model: SourceLoggedModel) -> Iterator[str]:
        """None."""
        return iter(())

    def fetch_model_file(self, model: SourceLoggedModel, path: str, destination: Path) -> Path:
        """There is nothing to fetch."""
        raise QueryError(f"W&B's files hold no model's file {path!r}")

    def models(self) -> Iterator[SourceModel]:
        """None."""
        return iter(())

    @functools.cached_property
    def _found(self) -> dict[str, Found]:
        """All runs by their ids here, the oldest first."""
        parts: defaultdict[tuple[str, str, str], list[Part]] = defaultdict(list)
        with ThreadPoolExecutor(AT_ONCE, "stepstream-import") as pool:
            for done, part in enumerate(pool.map(self._part, self._logs), 1):
                self._progress(done, len(self._logs))
                if part is None:
                    continue
                if part.head.run:
                    parts[part.head.identity].append(part)
                problem = part.log.problem or ("" if part.head.run else f"{part.log.file}: there is no run in it")
                self.problems += [problem] if problem else []
        found = [self._run(_once(group)) for group in parts.values()]
        return {one.run.run_id: one for one in sorted(found, key=lambda one: one.run.start_time_ms)}

    def _part(self, log: Log) -> Part | None:
        """None for what is not there, such as where a link leads to."""
        try:
            size, head = log.file.stat().st_size, Head()
        except OSError as error:
            self._unread(error)
            return None
        for kind, said in log.records():
            head.take(kind, said)
        with self._lock:
            if self._kept_bytes + log.kept_bytes > KEPT_BYTES:
                log.forget()
            self._kept_bytes += log.kept_bytes
        return Part(log=log, size=size, head=head)

    def _run(self, parts: Sequence[Part]) -> Found:
        head = functools.reduce(Head.goes_on_with, (part.head for part in parts))
        keys = Keys()
        run = SourceRun(
            run_id=hashlib.sha256(f"wandb {'/'.join(head.identity)}".encode()).hexdigest()[:32],
            name=head.name,
            user="",
            status=head.status,
            start_time_ms=head.start_ms,
            end_time_ms=head.end_ms,
            deleted=False,
            artifact_uri=str(_files_of(parts[-1]) or ""),
            params=head.params(keys),
            tags=head.tags(),
            latest=[],
            datasets=[],
            version=[(part.log.file.name, part.size, *_weight(_files_of(part))) for part in parts],
        )
        self.marked |= keys.marked
        return Found(experiment=self._experiment or head.identity[1] or NO_PROJECT, run=run, parts=parts)

    def _find(self, root: Path) -> Iterator[Path]:
        if root.is_file() and root.suffix == ".wandb":
            yield root
            return
        # Not through links: `latest-run` is one.
        for folder, _, names in os.walk(root, onerror=self._unread):
            yield from (Path(folder, name) for name in names if LOG.fullmatch(name))

    def _listed(self, part: Part) -> Iterator[str]:
        root = _files_of(part)
        if root is not None:
            for folder, _, names in os.walk(root, onerror=self._unread):
                yield from (Path(folder, name).relative_to(root).as_posix() for name in names)

    def _unread(self, error: OSError) -> None:
        self.problems.append(f"{error.filename}: {error.strerror}")


def _once(parts: Sequence[Part]) -> Sequence[Part]:
    """The oldest first; of copies the longest."""
    longest = {part.head.start_ms: part for part in sorted(parts, key=lambda part: part.size)}
    return [longest[start_ms] for start_ms in sorted(longest)]


def _files_of(part: Part) -> Path | None:
    """None beside a file that lies in no folder of a run: what else is there is not the run's."""
    folder = part.log.file.resolve().parent
    return folder / FILES if FOLDER.fullmatch(folder.name) and (folder / FILES).is_dir() else None


def _weight(folder: Path | None) -> tuple[int, int]:
    """How many files there are, and their bytes."""
    places = [Path(above, name) for above, _, names in os.walk(folder) for name in names] if folder else []
    return len(places), sum(place.stat().st_size for place in places if place.is_file())


def _place(parts: Sequence[Part], path: str) -> Path | None:
    """Where a file of a run is; a resumed run may have written it again."""
    places = (folder / path for folder in map(_files_of, reversed(parts)) if folder)
    return next((place for place in places if place.is_file()), None)
