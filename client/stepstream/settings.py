"""What a run is told from outside: arguments first, then STEPSTREAM_*, then MLflow's names, then defaults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stepstream import credentials
from stepstream.errors import ConfigurationError
from stepstream.keys import clean

DEFAULT_TRACKING_URI: Final = "http://127.0.0.1:5150"
DEFAULT_EXPERIMENT: Final = "Default"
EVERY_CALL: Final = "every call"
TRACKING_URIS: Final = ("STEPSTREAM_TRACKING_URI", "MLFLOW_TRACKING_URI")
EXPERIMENT_NAMES: Final = ("STEPSTREAM_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Validated once, when a run starts; nothing reads the environment later."""

    tracking_uri: str
    """Base URL of the server, without a trailing slash, and without a name and password."""
    token: str | None = field(repr=False)
    """Sent as a Bearer token, or `credentials.Basic`, which an address held; never written to the spool."""
    experiment: str
    """Experiment that a run without one goes to."""
    spool_dir: Path
    """Where frames wait until the server has acknowledged them."""
    spool_interval_s: float
    """After this long a logged point is in the spool; 0 means before log() returns (`every call`)."""
    spool_max_bytes: int
    """Most that one writer keeps in the spool."""
    spool_min_free_bytes: int
    """The spool stops growing when the disk has less than this left."""
    buffer_bytes: int
    """Most that log() keeps in memory before it is framed; beyond it points are dropped and counted."""
    finish_timeout_s: float
    """How long finish() waits for the server, at most; and for artifacts, while nothing of them moves."""
    artifact_timeout_s: float
    """How long finish() waits for artifacts that move, at most."""


def load(environ: Mapping[str, str], **given: object) -> Settings:
    """Settings from `given` arguments (None is not given) and the environment; problems are reported together."""
    problems: list[str] = []

    def number(name: str, default: float, least: float) -> float:
        argument = given.get(name.lower())
        text = str(argument) if argument is not None else environ.get(f"STEPSTREAM_{name}", "")
        if not text.strip():
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not value >= least or value == float("inf"):
            problems.append(f"STEPSTREAM_{name} must be a number of at least {least:g}, not {text!r}")
            return default
        return value

    interval = str(given.get("spool_interval") or environ.get("STEPSTREAM_SPOOL_INTERVAL", ""))
    every_call = re.sub(r"[\s_-]+", " ", interval.strip().lower()) == EVERY_CALL
    tracking_uri, basic = _tracking_uri(environ, given.get("tracking_uri"), problems)
    settings = Settings(
        tracking_uri=tracking_uri,
        token=_token(environ, given.get("token"), problems) or basic,
        experiment=_experiment(environ, given.get("experiment"), problems),
        spool_dir=_spool_dir(environ, given.get("spool_dir"), problems),
        spool_interval_s=0.0 if every_call else number("SPOOL_INTERVAL", 0.5, 0.01),
        spool_max_bytes=int(number("SPOOL_MAX_BYTES", 8 * 2**30, 2**20)),
        spool_min_free_bytes=int(number("SPOOL_MIN_FREE_BYTES", 2**30, 0)),
        buffer_bytes=int(number("BUFFER_BYTES", 64 * 2**20, 2**16)),
        finish_timeout_s=number("FINISH_TIMEOUT", 30.0, 0.0),
        artifact_timeout_s=number("ARTIFACT_TIMEOUT", 3600.0, 0.0),
    )
    if problems:
        raise ConfigurationError("; ".join(problems))
    return settings


def _token(environ: Mapping[str, str], given: object, problems: list[str]) -> str | None:
    said = _text(given) or environ.get("STEPSTREAM_TOKEN") or environ.get("MLFLOW_TRACKING_TOKEN") or ""
    # A secret that is read from a file often ends with a newline, which no header may hold.
    token = said.strip()
    if not token.isprintable() or not token.isascii():
        problems.append("the token (STEPSTREAM_TOKEN) holds characters that no HTTP header may: is it what was meant?")
    return token or None


def _text(value: object) -> str | None:
    return str(value) if value else None


def address(environ: Mapping[str, str], given: object) -> str:
    """The server as it was said, with a name and password where those of the same server are said anywhere."""
    said = [uri for _, uri in _addresses(environ, given)]
    return credentials.kept(said[0], said[1:])


def _addresses(environ: Mapping[str, str], given: object) -> list[tuple[str, str]]:
    """By whom a server is said, the first that counts first."""
    named = ((name, environ.get(name)) for name in TRACKING_URIS)
    said = [(name, uri) for name, uri in (("tracking_uri", _text(given)), *named) if uri]
    return said or [("", DEFAULT_TRACKING_URI)]


def _tracking_uri(
    environ: Mapping[str, str], given: object, problems: list[str]
) -> tuple[str, credentials.Basic | None]:
    (name, uri), *others = _addresses(environ, given)
    found = credentials.origin(uri)
    if found is None or found[0] not in credentials.PORTS or not found[1] or credentials.goes_astray(uri):
        # Not the reason in urllib's words, which may hold a password.
        encoded = "; what a name or password in it has of /?#[]@: is percent-encoded" if "@" in uri else ""
        problems.append(
            f"{name} is {credentials.shown(uri)!r}, and StepStream's server is reached by http:// or https://, a host "
            f"and a port that is a number{encoded}; set STEPSTREAM_TRACKING_URI, for example {DEFAULT_TRACKING_URI}"
        )
        return DEFAULT_TRACKING_URI, None
    return credentials.without(uri).rstrip("/"), credentials.held(uri, [one for _, one in others])


def _experiment(environ: Mapping[str, str], given: object, problems: list[str]) -> str:
    sources = (("experiment", _text(given)), *((name, environ.get(name)) for name in EXPERIMENT_NAMES))
    source, name = next(((source, name) for source, name in sources if name), ("", DEFAULT_EXPERIMENT))
    # Not cleaned as a run's name is: under another name it would be another experiment.
    if clean(name) != name:
        problems.append(f"{source} must be valid Unicode text without a NUL character, not {name[:80]!r}")
    return name


def _spool_dir(environ: Mapping[str, str], given: object, problems: list[str]) -> Path:
    said = given or environ.get("STEPSTREAM_SPOOL_DIR")
    if said:
        path = Path(str(said))
    elif environ.get("XDG_STATE_HOME"):
        path = Path(environ["XDG_STATE_HOME"]) / "stepstream" / "spool"
    else:
        path = Path("~", ".local", "state", "stepstream", "spool")
    try:
        # Wherever the training goes on to: its directory may be another one when it ends.
        return path.expanduser().absolute()
    except (RuntimeError, OSError) as error:
        # No home, as of a container's user without a name; or a working directory that was removed.
        problems.append(f"the spool cannot be at {path} ({error}); set STEPSTREAM_SPOOL_DIR to an absolute path")
        return path
