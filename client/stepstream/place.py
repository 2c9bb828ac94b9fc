"""Where this process logs to: the server and the experiment that were said for all runs to come."""

import os
from typing import Final

from stepstream import credentials, settings
from stepstream.errors import ConfigurationError

# Assigned in one step of the interpreter; threads that disagree want arguments.
_said: Final[dict[str, str]] = {}
_before: Final[dict[str, str | None]] = {}
"""What the environment said before it was told the same, for processes that this one starts."""


def set_tracking_uri(uri: str | os.PathLike[str] | None) -> None:
    """Runs that start from now on, and questions, go to this server; None: where the environment says.

    Raises ConfigurationError for what is no server's address.
    """
    if uri:
        settings.load(os.environ, tracking_uri=str(uri))
        # What get_tracking_uri() has answered has no password, and may be said again.
        said = settings.address(os.environ, str(uri))
        _said["tracking_uri"] = said
        _export("STEPSTREAM_TRACKING_URI", said)
    else:
        _said.pop("tracking_uri", None)
        _take_back("STEPSTREAM_TRACKING_URI")


def get_tracking_uri() -> str:
    """The server that is talked to, without a name and password, which its address is still asked with."""
    return settings.load(os.environ, tracking_uri=tracking_uri()).tracking_uri


def is_tracking_uri_set() -> bool:
    """Whether anybody has said where the server is."""
    return bool(tracking_uri() or os.environ.get("STEPSTREAM_TRACKING_URI") or os.environ.get("MLFLOW_TRACKING_URI"))


def set_registry_uri(uri: str | os.PathLike[str] | None) -> None:
    """The registry is the tracking server's. Raises ConfigurationError for any other."""
    if uri and settings.load(os.environ, tracking_uri=str(uri)).tracking_uri != get_tracking_uri():
        said = credentials.shown(str(uri))
        raise ConfigurationError(f"the registry is that of {get_tracking_uri()}; call set_tracking_uri({said!r})")


def get_registry_uri() -> str:
    """Where the registry is: on the server that is talked to."""
    return get_tracking_uri()


def tracking_uri() -> str | None:
    """What set_tracking_uri was told last."""
    return _said.get("tracking_uri")


def say_experiment(name: str) -> None:
    """Runs that start from now on belong to it."""
    _said["experiment"] = name
    _export("STEPSTREAM_EXPERIMENT_NAME", name)


def experiment() -> str | None:
    """What set_experiment was told last."""
    return _said.get("experiment")


def _export(name: str, value: str) -> None:
    if "\0" not in value:
        _before.setdefault(name, os.environ.get(name))
        os.environ[name] = value


def _take_back(name: str) -> None:
    if name in _before:
        before = _before.pop(name)
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
