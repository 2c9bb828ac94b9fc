"""Runs what Python is asked to run in forks of a process that has imported the modules it was given, a line a run.

Run by a Python that has them: MODULE ... The answer to {"arguments", "environ", "stdout", "stderr"} is the exit code.
"""

import gc
import importlib
import json
import os
import runpy
import sys
from pathlib import Path


def next_run():
    """What to run, in a child of its own; the parent waits for it, and for the next."""
    for line in sys.stdin:
        if not (child := os.fork()):
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def become(asked):
    """As if this process had been started so."""
    for number, name in ((0, os.devnull), (1, asked["stdout"]), (2, asked["stderr"])):
        opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(asked["environ"])
    first, *rest = asked["arguments"]
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        sys.path[0] = os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


for module in sys.argv[1:]:
    importlib.import_module(module)
# Else each child would copy all of it for its first collection.
gc.collect()
gc.freeze()
become(next_run())
