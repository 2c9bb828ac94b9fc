"""StepStream: log every step of every rank.

import stepstream

with stepstream.start_run(experiment="mnist") as run:
    run.log_params({"lr": 1e-3})
    for step in range(1000):
        run.log({"loss": 1 / (step + 1)}, step=step)
"""

from typing import TYPE_CHECKING, Any

from stepstream.errors import (
    ArtifactError,
    BadValue,
    ConfigurationError,
    QueryError,
    RunIdentityError,
    StepStreamError,
)
from stepstream.report import FinishReport, Lag, Stats
from stepstream.run import Run
from stepstream.start import download_artifacts, start_run

if TYPE_CHECKING:
    from stepstream.async_run import AsyncRun

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "AsyncRun",
    "BadValue",
    "ConfigurationError",
    "FinishReport",
    "Lag",
    "QueryError",
    "Run",
    "RunIdentityError",
    "Stats",
    "StepStreamError",
    "__version__",
    "download_artifacts",
    "start_run",
]


def __getattr__(name: str) -> Any:
    # asyncio takes longer to import than all the rest; a program that has no event loop does not pay for it.
    if name == "AsyncRun":
        from stepstream.async_run import AsyncRun

        return AsyncRun
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
