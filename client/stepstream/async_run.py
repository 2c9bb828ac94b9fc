"""The twin of Run for programs that own an event loop: what waits, waits without blocking the loop."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal

from stepstream import lifecycle
from stepstream.report import FinishReport, Lag, Stats
from stepstream.run import Run
from stepstream.start import start_run

if TYPE_CHECKING:
    from stepstream.artifacts.handle import Upload


class AsyncRun:
    """`async with AsyncRun(experiment=...) as run: run.log({...})`; takes the arguments of `start_run`.

    Logging is not awaited: it never waits for anything. `flush` and `finish` are.
    """

    def __init__(self, experiment: str | None = None, run_name: str | None = None, **options: Any) -> None:
        self._run: Run = start_run(experiment, run_name, **options)

    @property
    def run_id(self) -> str:
        """32 hex digits."""
        return self._run.run_id

    @property
    def lag(self) -> Lag:
        """What was logged and is not yet durable on the server."""
        return self._run.lag

    @property
    def stats(self) -> Stats:
        """What has happened to the points of this writer."""
        return self._run.stats

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values that belong together; see `Run.log`."""
        self._run.log(metrics, step)

    def log_metric(self, key: str, value: Any, step: int | None = None, timestamp: int | None = None) -> None:
        """Log one value; see `Run.log_metric`."""
        self._run.log_metric(key, value, step, timestamp)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None, timestamp: int | None = None) -> None:
        """The same as `log`; see `Run.log_metrics`."""
        self._run.log_metrics(metrics, step, timestamp)

    def log_input(self, dataset: Any, context: str | None = None, tags: Mapping[str, object] | None = None) -> None:
        """Say that the run reads a dataset; see `Run.log_input`."""
        self._run.log_input(dataset, context, tags)

    def delete_tag(self, key: str) -> None:
        """Remove a tag."""
        self._run.delete_tag(key)

    def log_param(self, key: str, value: object) -> None:
        """Log a parameter; the first value that is stored stays."""
        self._run.log_param(key, value)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters."""
        self._run.log_params(params)

    def set_tag(self, key: str, value: object) -> None:
        """Set a tag; the last value stays."""
        self._run.set_tag(key, value)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        self._run.set_tags(tags)

    async def log_artifact(
        self, local: "str | os.PathLike[str] | IO[Any]", artifact_path: str | None = None
    ) -> "Upload":
        """Send a file to the run's artifacts, in the background; see `Run.log_artifact`."""
        return await asyncio.to_thread(self._run.log_artifact, local, artifact_path)

    async def log_artifacts(self, directory: "str | os.PathLike[str]", artifact_path: str | None = None) -> "Upload":
        """Send every file below a directory, in the background; see `Run.log_artifacts`."""
        return await asyncio.to_thread(self._run.log_artifacts, directory, artifact_path)

    async def log_text(self, text: str, artifact_path: str) -> "Upload":
        """Store a text as an artifact."""
        return await asyncio.to_thread(self._run.log_text, text, artifact_path)

    async def download_artifacts(self, path: str = "", destination: "str | os.PathLike[str]" = ".") -> Path:
        """Fetch a file of this run, or everything below a directory; see `Run.download_artifacts`."""
        return await asyncio.to_thread(self._run.download_artifacts, path, destination)

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far is durable; whether it is, see `Run.flush`."""
        return await asyncio.to_thread(self._run.flush, timeout)

    async def finish(
        self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", timeout: float | None = None
    ) -> FinishReport:
        """End the run; see `Run.finish`."""
        return await asyncio.to_thread(self._run.finish, status, timeout)

    async def __aenter__(self) -> "AsyncRun":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or (isinstance(error, SystemExit) and not lifecycle.is_failure(error.code)):
            await self.finish("FINISHED")
        else:
            await self.finish("KILLED" if issubclass(kind, asyncio.CancelledError | KeyboardInterrupt) else "FAILED")
