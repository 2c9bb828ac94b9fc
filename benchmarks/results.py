"""One JSON object a run on standard output; progress on standard error, in a terminal only."""

import json
import os
import platform
import sys
import time
from typing import Any


def environment() -> dict[str, Any]:
    """What a reader needs to judge absolute numbers."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def emit(**measured: Any) -> None:
    """Print the run's one object."""
    print(json.dumps({"environment": environment()} | measured, indent=2), flush=True)


def say(text: str) -> None:
    """Progress for people."""
    if sys.stderr.isatty() or os.environ.get("STEPSTREAM_BENCHMARK_VERBOSE"):
        print(text, file=sys.stderr, flush=True)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
