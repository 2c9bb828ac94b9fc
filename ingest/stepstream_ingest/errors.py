"""What the server raises, sorted by who must act.

IngestError
    DatabaseAway        try again later; nothing is lost, nothing of this request is stored
    RunClosed           whoever logs: the run is not there, deleted or given up; nothing is stored
    NotStorable         the sender of a request: PostgreSQL has no place for a text or number in it
    NameTaken           the sender of a request: another was given the name at the same moment; nothing is stored
    DatabaseTooNew      the operator: a newer StepStream has used this database
    ServerSetupError    the operator: the server cannot start as it was told to
ApiError                the sender of a request: becomes its answer
"""


class IngestError(Exception):
    """Everything that goes wrong in the server for a known reason."""


class DatabaseAway(IngestError):
    """PostgreSQL cannot be reached, or ended in the middle; sending again is safe."""


class RunClosed(IngestError):
    """A run takes no points as it is; nothing of what was to be stored together is."""


class NotStorable(IngestError):
    """A text or number of a request cannot be stored or compared: a NUL, a number of 20 digits, a very long key."""


class NameTaken(IngestError):
    """A name that belongs to one thing alone was given to another at the same moment."""


class DatabaseTooNew(IngestError):
    """The database has migrations that this server does not know."""


class ServerSetupError(IngestError):
    """The server cannot start; the message says what to do."""


class ApiError(Exception):
    """A request that cannot be served; `status` and `code` go out with the message."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
