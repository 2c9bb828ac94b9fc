"""What an open run says of itself under MLflow's names; what only the server knows is asked when it is read."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from stepstream.query import Server
from stepstream_schema import paths

if TYPE_CHECKING:
    from stepstream.run import Run


class OpenRunInfo:
    """`run.info`: experiment_id and artifact_uri ask the server, and may raise QueryError; all else is known."""

    def __init__(self, run: "Run", server: Server, start_time_ms: int) -> None:
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
        """Its name for people."""
        return self._run.name

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
        return str(self._experiment["experiment_id"])

    @property
    def artifact_uri(self) -> str:
        """Where its artifacts lie."""
        return f"{self._experiment['artifact_location']}/{self._run.run_id}/artifacts"

    @cached_property
    def _experiment(self) -> dict[str, Any]:
        return self._server.ask("POST", paths.EXPERIMENTS, {"name": self._run.experiment})
