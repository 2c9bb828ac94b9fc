"""What the client raises, sorted by who must act.

StepStreamError
    ConfigurationError      settings that cannot be meant; raised when a run starts, never later
        RunIdentityError    several nodes, and nothing that tells them which run is theirs
    BadValue                a value that is no number; counted by log(), which never raises
    SpoolDamaged            a frame cannot be read back from the spool
    QueryError              the server cannot answer a question; logging is not concerned
    ArtifactError           a file that cannot be logged or fetched as it was asked; its neighbours are
"""


class StepStreamError(Exception):
    """Everything this package raises on purpose."""

    error_code: str = "INVALID_PARAMETER_VALUE"
    """In the words of MLflow's protocol."""

    @property
    def message(self) -> str:
        """What happened."""
        return str(self)


class ConfigurationError(StepStreamError, ValueError):
    """Settings that cannot be meant; nothing has started and nothing is lost."""


class RunIdentityError(ConfigurationError):
    """The ranks of this job cannot know that they belong together."""


class BadValue(StepStreamError, TypeError):
    """A value that cannot be logged as a metric; its neighbours are."""


class QueryError(StepStreamError):
    """The server did not answer a question as it was asked; what is logged is safe."""

    def __init__(self, message: str, *, status: int | None = None, error_code: str = "TEMPORARILY_UNAVAILABLE") -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, where the server answered."""
        self.error_code = error_code
        """What the server calls it; TEMPORARILY_UNAVAILABLE where it did not answer."""


class ArtifactError(StepStreamError, ValueError):
    """A file cannot be logged or fetched; nothing half done is left behind."""


class SpoolDamaged(StepStreamError):
    """Bytes in the spool are not what was written there; frames before them are safe."""

    def __init__(self, message: str, *, unreadable_bytes: int = 0, is_cut_off: bool = False) -> None:
        super().__init__(message)
        self.is_cut_off = is_cut_off
        """An entry begins and the file ends in it: as a kill in the middle of a write leaves it."""
        self.unreadable_bytes = unreadable_bytes
        """From the first damaged byte to the end of the segment, where a whole segment was read."""
