"""What the records of a W&B run mean. Pure."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from stepstream.code_version import without_password
from stepstream.importing.keys import Keys, key_of
from stepstream.importing.values import Point
from stepstream_schema import limits

OWN: Final = re.compile(r"_step|_timestamp|_runtime|_wandb(\..*)?")
"""What W&B adds itself: a point has its step and its time anyway."""
KIND: Final = "_type"
"""What is no plain value, an image or a histogram, is a dict with this key in it."""
NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
SYSTEM: Final = "system/"
LABELS: Final = {
    "wandb.run_id": "run_id",
    "wandb.entity": "entity",
    "wandb.project": "project",
    "wandb.group": "run_group",
    "wandb.job_type": "job_type",
    "wandb.sweep_id": "sweep_id",
    "wandb.host": "host",
    "mlflow.note.content": "notes",
}
"""Tags by what a run's record calls them."""


@dataclass(slots=True, kw_only=True)
class Head:
    """What is said of a run beside its histories. Law: what was said last counts."""

    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    """None where nothing says how it ended."""
    start_ms: int = 0
    end_ms: int = 0
    """Of whatever was heard last."""

    def take(self, kind: str, said: Mapping[str, Any]) -> None:
        """The next record."""
        if kind == "run":
            self.run |= said
            self._configure(said.get("config") or {})
            self.start_ms = self.start_ms or _ms(said.get("start_time"))
            self._heard(self.start_ms)
        elif kind == "config":
            self._configure(said)
        elif kind == "environment":
            self.environment |= said
        elif kind == "exit":
            self.exit_code = int(said.get("exit_code", 0))
        elif kind == "summary":
            runtime = number((said.get("update") or {}).get("_wandb.runtime")) or 0
            self._heard(self.start_ms + round(runtime * 1000))
        elif kind == "history":
            self._heard(_row_ms(said.get("item") or {}))
        else:
            self._heard(_ms(said.get("timestamp")))

    def goes_on_with(self, later: "Head") -> "Head":
        """The same run, resumed under its id."""
        return Head(
            run=self.run | later.run,
            config=self.config | later.config,
            environment=self.environment | later.environment,
            exit_code=later.exit_code,
            start_ms=self.start_ms,
            end_ms=max(self.end_ms, later.end_ms),
        )

    @property
    def identity(self) -> tuple[str, str, str]:
        """(entity, project, id): what makes it that run."""
        entity, project, run_id = (str(self.run.get(name) or "") for name in ("entity", "project", "run_id"))
        return entity, project, run_id

    @property
    def name(self) -> str:
        """The one that is shown; W&B's server gives one to a run that has none, and offline the id is all there is."""
        return _text(self.run.get("display_name") or self.run.get("run_id") or "")[: limits.MAX_NAME_CHARS]

    @property
    def status(self) -> str:
        """What nothing says the end of has failed: it was killed, or is still running and comes again."""
        return "FINISHED" if self.exit_code == 0 else "FAILED"

    def params(self, keys: Keys) -> dict[str, str]:
        """The configuration, nested names joined by a point as W&B's pages show them."""
        return {keys.of(key): _text(value) for key, value in flat(self.config) if not OWN.fullmatch(key)}

    def tags(self) -> dict[str, str]:
        """Its tags, each `true`; and whatever else it says of itself."""
        git = self.environment.get("git") or {}
        program = self.environment.get("program") or ""
        said = {tag: self.run.get(name) for tag, name in LABELS.items()}
        said |= {
            "mlflow.runName": self.name,
            "mlflow.source.name": program,
            "mlflow.source.type": "LOCAL" if program else "",
            "mlflow.source.git.commit": git.get("commit"),
            "mlflow.source.git.repoURL": without_password(str(git.get("remote_url") or "")),
        }
        labels = {key_of(str(tag)): "true" for tag in self.run.get("tags") or ()}
        return labels | {tag: _text(value) for tag, value in said.items() if value}

    def _configure(self, said: Mapping[str, Any]) -> None:
        self.config |= said.get("update") or {}
        for removed in said.get("remove") or ():
            self.config.pop(str(removed.get("key")), None)

    def _heard(self, time_ms: int) -> None:
        self.end_ms = max(self.end_ms, time_ms)


class Histories:
    """All points of a run, from its records in order. Law: the same records give the same points.

    What a machine was measured to do is counted from 0 in each part: a part that is taken alone knows no other.
    """

    def __init__(self, start_ms: int) -> None:
        self._time_ms = start_ms
        self._step = 0
        self._samples = 0
        self._seen: set[str] = set()
        self._summary: dict[str, Any] = {}
        self.keys = Keys()
        self.left_out = 0
        """Values that are no numbers."""
        self.artifacts = 0
        """Versions of W&B's artifacts, whose files are elsewhere; tables, which are files of the run, do not count."""

    def take(self, kind: str, said: Mapping[str, Any]) -> Iterator[Point]:
        """Of the next record."""
        if kind == "history":
            yield from self._row(said)
        elif kind == "stats":
            yield from self._sample(said)
        elif kind == "summary":
            self._sum_up(said)
        elif kind == "artifact":
            self.artifacts += said.get("type") != "run_table"

    def next_part(self) -> None:
        """What is taken from now on is of the run's next file."""
        self._samples = 0

    def rest(self) -> Iterator[Point]:
        """What the summary alone says, as of the last step."""
        said = {key: value for key, value in self._summary.items() if key not in self._seen}
        yield from self._points("", said, self._time_ms, self._step)

    def _row(self, said: Mapping[str, Any]) -> Iterator[Point]:
        item = dict(flat(said.get("item") or {}))
        self._time_ms = _row_ms(item) or self._time_ms
        self._step = int(item.get("_step", (said.get("step") or {}).get("num", self._step)))
        self._seen.update(item)
        return self._points("", item, self._time_ms, self._step)

    def _sample(self, said: Mapping[str, Any]) -> Iterator[Point]:
        item, step = dict(flat(said.get("item") or {})), self._samples
        self._samples += 1
        return self._points(SYSTEM, item, _ms(said.get("timestamp")) or self._time_ms, step)

    def _points(self, above: str, item: Mapping[str, Any], time_ms: int, step: int) -> Iterator[Point]:
        numbers, left_out = parted(item)
        self.left_out += left_out
        return ((self.keys.of(above + key), value, time_ms, step) for key, value in numbers)

    def _sum_up(self, said: Mapping[str, Any]) -> None:
        self._summary |= flat(said.get("update") or {})
        for removed in said.get("remove") or ():
            key = str(removed.get("key"))
            for one in [one for one in self._summary if one == key or one.startswith(f"{key}.")]:
                del self._summary[one]


def flat(said: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names joined by a point, as W&B's command joins most of them itself."""
    for key, value in said.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def parted(item: Mapping[str, Any]) -> tuple[Sequence[tuple[str, float]], int]:
    """The numbers of a flat row; and how many values are none, where an image with all that is said of it is one."""
    media = tuple({key.removesuffix(KIND) for key in item if key.endswith(f".{KIND}")})
    plain = [
        (key, number(value)) for key, value in item.items() if not key.startswith(media) and not OWN.fullmatch(key)
    ]
    numbers = [(key, value) for key, value in plain if value is not None]
    return numbers, len(plain) - len(numbers) + len(media)


def number(value: Any) -> float | None:
    """Booleans are 0 and 1; what is not finite has a word, for JSON has no number for it."""
    if isinstance(value, str):
        return NOT_FINITE.get(value)
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _row_ms(item: Mapping[str, Any]) -> int:
    time_s = number(item.get("_timestamp"))
    return round(time_s * 1000) if time_s is not None and math.isfinite(time_s) else 0


def _ms(said: Any) -> int:
    """Of a time as text; 0 for none."""
    return round(datetime.fromisoformat(said).timestamp() * 1000) if isinstance(said, str) else 0


def _text(value: Any) -> str:
    """As str() has it, like log_params(); no text here may hold a NUL."""
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
