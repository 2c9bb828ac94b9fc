"""What runs: the script, who runs it, and its commit, as MLflow's tags say it. Asked off the training's thread."""

import functools
import getpass
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

GIT_S: Final = 5.0
"""git on a slow network file system must not keep a run from ending."""


@functools.cache
def tags() -> dict[str, str]:
    """Once for each process; what is not known is left out. Never raises."""
    script = _script()
    said = {
        "mlflow.user": user(),
        "mlflow.source.name": script,
        "mlflow.source.type": "NOTEBOOK" if _in_notebook() else "LOCAL",
        **_git(Path(script).parent if Path(script).is_file() else Path()),
    }
    return {key: value for key, value in said.items() if value}


@functools.cache
def user() -> str:
    """Who runs this; empty where the system knows no name for its number."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _script() -> str:
    name = sys.argv[0] if sys.argv else ""
    return name if name not in ("", "-c", "-m") else Path(sys.executable).name


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    made = getattr(shell, "get_ipython", lambda: None)() if shell is not None else None
    return type(made).__name__ == "ZMQInteractiveShell"


def _git(directory: Path) -> dict[str, str]:
    commit = _ask(directory, "rev-parse", "HEAD")
    if not commit:
        return {}
    branch = _ask(directory, "rev-parse", "--abbrev-ref", "HEAD")
    changed = _ask(directory, "status", "--porcelain", "--untracked-files=no")
    return {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": "" if branch == "HEAD" else branch,
        "mlflow.source.git.repoURL": without_password(_ask(directory, "config", "--get", "remote.origin.url")),
        "mlflow.source.git.dirty": "true" if changed else "false",
    }


def _ask(directory: Path, *command: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *command],
            capture_output=True,
            text=True,
            timeout=GIT_S,
            stdin=subprocess.DEVNULL,
            # Taking a look must not write: another git may be at work in the same place.
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def without_password(url: str) -> str:
    """The address without who signs in by it."""
    scheme, separator, rest = url.partition("://")
    who, at, place = rest.partition("@")
    return f"{scheme}{separator}{place}" if separator and at and "/" not in who else url
