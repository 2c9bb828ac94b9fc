"""What an open run says of itself under MLflow's names; what only the server knows is asked when it is read."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from stepstream.errors import QueryError
from stepstream_schema import paths

if TYPE_CHECKING:
    from stepstream.query import Server
    from stepstream.run import Run

_named: "Final[WeakSet[Run]]" = WeakSet()
NOT_FOUND: Final = 404


def named_by_id(run: "Run") -> None:
    """Somebody has said its id: it may exist already, under another name, and in another experiment than is said."""
    _named.add(run)


class OpenRunInfo:
    """`run.info`: experiment_id and artifact_uri ask the server, and may raise QueryError; all else is known.

    Of a run that was named by its id, the name is asked for, too.
    """

    def __init__(self, run: "Run", server: "Server", start_time_ms: int) -> None:
        self._run = run
        self._server = server
        self.start_time = start_time_ms
        self.end_time: int | None = None
        self.lifecycle_stage = "active"

    def __copy__(self) -> "OpenRunInfo":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "OpenRunInfo":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Of the run where it is read, for what only the server knows must not be waited for here.
        return getattr, (self._run, "info")

    @property
    def run_id(self) -> str:
        """32 hex digits."""
        return self._run.run_id

    @property
    def run_uuid(self) -> str:
        """The older name of run_id."""
        return self._run.run_id

    @property
    def run_name(self) -> str:
        """Its name for people; where the server does not tell it in time, the one that this process would give it."""
        return self._stored_name or self._run.name

    @property
    def status(self) -> str:
        """As this process has said it."""
        return self._run.status

    @property
    def user_id(self) -> str:
        """Who started it."""
        from stepstream import code_version

        return code_version.user()

    @property
    def experiment_id(self) -> str:
        """Of its experiment, which is made if there is none yet."""
        return str(self._placed["experiment_id"])

    @property
    def artifact_uri(self) -> str:
        """Where its artifacts lie."""
        return str(self._placed["artifact_uri"])

    @property
    def _placed(self) -> dict[str, Any]:
        return self._stored if self._stored is not None else self._to_be

    @cached_property
    def _stored_name(self) -> str:
        """Asked for once: what is printed for people must neither end a training nor hold it up, and may be wrong."""
        if self._run not in _named:
            return ""
        try:
            return str(self._server.hurried().ask("GET", paths.run(self._run.run_id))["name"])
        except QueryError:
            return ""

    @cached_property
    def _stored(self) -> dict[str, Any] | None:
        """As the server has it; None for one that it does not know, or that began here."""
        if self._run not in _named:
            return None
        try:
            return self._server.ask("GET", paths.run(self._run.run_id))
        except QueryError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    @cached_property
    def _to_be(self) -> dict[str, Any]:
        """What the server will have of a run that begins here."""
        made = self._server.ask("POST", paths.EXPERIMENTS, {"name": self._run.experiment})
        return {
            "experiment_id": made["experiment_id"],
            "artifact_uri": f"{made['artifact_location']}/{self._run.run_id}/artifacts",
        }
