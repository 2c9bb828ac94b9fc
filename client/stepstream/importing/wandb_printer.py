"""A process that prints W&B's files, each by W&B's own command in a child, and imports `wandb` once for all of them.

That takes a second, as long as printing thousands of steps. In comes a file's name as a line of JSON; out goes what the
command prints, then END and its exit code.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import sys
from typing import Final

INSPECT: Final = ("leet", "inspect", "--json")
END: Final = "\x00"
"""Stands in no line of JSON."""


def main() -> None:
    """Until nothing more comes in."""
    # What `python -m wandb` imports. Were it another module some day, each child would import it for itself.
    with contextlib.suppress(ImportError):
        importlib.import_module("wandb.cli.cli")
    gc.freeze()
    for line in sys.stdin:
        if not (child := os.fork()):
            _print(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(END, os.waitstatus_to_exitcode(status), flush=True)


def _print(file: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.argv = ["wandb", *INSPECT, file]
    runpy.run_module("wandb", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
