"""What the server knows, as values: the names and fields are MLflow's, so that its scripts read them alike.

Ids are text; times are milliseconds since the epoch, UTC.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, TypeVar

Entity = TypeVar("Entity")


class ViewType:
    """Which lifecycle stages a search looks at."""

    ACTIVE_ONLY: Final = 1
    DELETED_ONLY: Final = 2
    ALL: Final = 3


class LifecycleStage:
    """Whether something is deleted."""

    ACTIVE: Final = "active"
    DELETED: Final = "deleted"


class RunStatus:
    """How a run stands."""

    RUNNING: Final = 1
    SCHEDULED: Final = 2
    FINISHED: Final = 3
    FAILED: Final = 4
    KILLED: Final = 5
    _NAMES: ClassVar[Mapping[int, str]] = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}

    @classmethod
    def to_string(cls, status: int) -> str:
        """Its name."""
        return cls._NAMES[status]

    @classmethod
    def from_string(cls, status: str) -> int:
        """Its number."""
        return {name: number for number, name in cls._NAMES.items()}[status]

    @classmethod
    def is_terminated(cls, status: int) -> bool:
        """Whether the run has ended."""
        return status in (cls.FINISHED, cls.FAILED, cls.KILLED)


class LoggedModelStatus:
    """Whether the files of a logged model have arrived."""

    PENDING: Final = "PENDING"
    READY: Final = "READY"
    FAILED: Final = "UPLOAD_FAILED"


class PagedList(list[Entity]):
    """A page; `token` asks for the next one, and is None on the last."""

    def __init__(self, items: Iterable[Entity], token: str | None) -> None:
        super().__init__(items)
        self.token = token


class _Value:
    """Reads as MLflow's entities do: by attribute, as (name, value) pairs, and as a dictionary."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.__dict__.items())

    def to_dictionary(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def _hash(self) -> int:
        """Of what holds mappings and lists, which have none; a class takes it as its own."""
        return hash(tuple(map(_hashable, self.__dict__.values())))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset(value.items())
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Metric(_Value):
    """One point of a metric, which a run may have measured of a logged model, on a dataset."""

    key: str
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Param(_Value):
    """A parameter."""

    key: str
    value: str


@dataclass(frozen=True)
class RunTag(_Value):
    """A tag of a run."""

    key: str
    value: str


@dataclass(frozen=True)
class ExperimentTag(_Value):
    """A tag of an experiment."""

    key: str
    value: str


@dataclass(frozen=True)
class InputTag(_Value):
    """A tag of a run's use of a dataset."""

    key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Experiment(_Value):
    """One experiment."""

    __hash__ = _Value._hash
    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    tags: Mapping[str, str] = field(default_factory=dict)
    creation_time: int | None = None
    last_update_time: int | None = None


@dataclass(frozen=True)
class Dataset(_Value):
    """What a run has read."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True)
class DatasetInput(_Value):
    """A dataset with the tags of its use, such as mlflow.data.context."""

    __hash__ = _Value._hash
    dataset: Dataset
    tags: Sequence[InputTag] = ()


@dataclass(frozen=True)
class LoggedModelInput(_Value):
    """A logged model that a run has read."""

    model_id: str


@dataclass(frozen=True)
class LoggedModelOutput(_Value):
    """A logged model that a run has made."""

    model_id: str
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class RunInputs(_Value):
    """What a run has read."""

    __hash__ = _Value._hash
    dataset_inputs: Sequence[DatasetInput] = ()
    model_inputs: Sequence[LoggedModelInput] = ()


@dataclass(frozen=True, kw_only=True)
class RunOutputs(_Value):
    """What a run has made."""

    __hash__ = _Value._hash
    model_outputs: Sequence[LoggedModelOutput] = ()


@dataclass(frozen=True, kw_only=True)
class RunInfo(_Value):
    """Who a run is."""

    run_id: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int | None
    end_time: int | None
    lifecycle_stage: str
    artifact_uri: str
    run_name: str

    @property
    def run_uuid(self) -> str:
        """The older name of run_id."""
        return self.run_id


@dataclass(frozen=True, kw_only=True)
class RunData(_Value):
    """Latest values of metrics, params and tags."""

    __hash__ = _Value._hash
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Run(_Value):
    """One run as the server knows it. (The handle that a training logs to is `stepstream.Run`.)"""

    info: RunInfo
    data: RunData
    inputs: RunInputs = RunInputs()
    outputs: RunOutputs = RunOutputs()


@dataclass(frozen=True)
class FileInfo(_Value):
    """A file or directory among a run's artifacts."""

    path: str
    is_dir: bool
    file_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoggedModel(_Value):
    """A model that a run has made."""

    __hash__ = _Value._hash
    model_id: str
    experiment_id: str
    name: str
    model_type: str | None
    source_run_id: str | None
    status: str
    status_message: str | None
    creation_timestamp: int
    last_updated_timestamp: int
    artifact_location: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[Metric] = ()

    @property
    def model_uri(self) -> str:
        """What registers it, or loads it."""
        return f"models:/{self.model_id}"


@dataclass(frozen=True, kw_only=True)
class ModelVersion(_Value):
    """One version of a registered model."""

    __hash__ = _Value._hash
    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str
    user_id: str
    current_stage: str
    source: str
    run_id: str | None
    run_link: str
    tags: Mapping[str, str]
    aliases: Sequence[str]
    model_id: str | None = None
    status: str = "READY"


@dataclass(frozen=True, kw_only=True)
class RegisteredModel(_Value):
    """One registered model."""

    __hash__ = _Value._hash
    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str
    latest_versions: Sequence[ModelVersion]
    tags: Mapping[str, str]
    aliases: Mapping[str, str]
