"""What the server is told: arguments first, then the environment, then defaults; every problem reported together."""

import argparse
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepstream_ingest.artifacts.stores import root
from stepstream_ingest.artifacts.stores.root import ArtifactRoot
from stepstream_ingest.errors import ServerSetupError

DEFAULT_PORT: Final = 5150
MAX_WORKERS: Final = 256
"""Each has connections of its own to PostgreSQL, which starts a process for every one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One server: its workers share it."""

    host: str
    port: int
    workers: int
    database_url: str | None
    """None starts a PostgreSQL of its own in `data_dir`."""
    data_dir: Path
    token: str | None
    old_tokens: list[str]
    """Taken as well as `token`: jobs that were started with one of them go on."""
    allowed_hosts: list[str] | None
    """Names by which it may be asked, beside addresses and localhost; None takes any."""
    heartbeat_timeout_s: float
    """A run whose writers are silent for this long is marked failed."""
    drain_s: float
    """After SIGTERM, what is admitted is committed and answered for at most this long."""
    compaction: bool
    """Take part in compaction; some server on the same database must."""
    artifact_root: ArtifactRoot
    """Where artifacts go; several machines need one that all of them reach."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stepstream server`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port (default: {DEFAULT_PORT})")
    parser.add_argument("--workers", type=int, help=f"processes (default: one for each core, at most {MAX_WORKERS})")
    parser.add_argument("--database-url", help="any PostgreSQL from 14 on; without one an embedded PostgreSQL is used")
    parser.add_argument("--data-dir", type=Path, help="where the embedded PostgreSQL lives")
    parser.add_argument(
        "--artifact-root", metavar="URL", help=f"{root.FORMS} (default: the folder artifacts in the data directory)"
    )
    parser.add_argument("--token", help="what clients must send; better given as STEPSTREAM_TOKEN")
    parser.add_argument(
        "--allowed-hosts",
        metavar="NAMES",
        help="names by which the server may be asked, with commas between (default: any; without a token on this "
        "machine alone, addresses and localhost)",
    )
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine without a token")
    parser.add_argument(
        "--no-compaction", action="store_true", help="only where another server on this database compacts"
    )
    parser.add_argument("--heartbeat-timeout", type=float, default=60.0, metavar="S", help="default: 60")
    parser.add_argument("--drain-timeout", type=float, default=10.0, metavar="S", help="default: 10")


def load(arguments: argparse.Namespace, environ: Mapping[str, str]) -> ServerConfig:
    """The configuration. Raises ServerSetupError that names every problem."""
    # As clients take it: a file that it came from, or a secret of Kubernetes, may have a newline at its end.
    token = (arguments.token or environ.get("STEPSTREAM_TOKEN") or "").strip() or None
    old_tokens = environ.get("STEPSTREAM_OLD_TOKENS", "").split()
    workers = arguments.workers if arguments.workers is not None else min(os.cpu_count() or 1, MAX_WORKERS)
    database_url = arguments.database_url or environ.get("STEPSTREAM_DATABASE_URL") or None
    problems = []
    allowed_hosts = _allowed_hosts(
        arguments.allowed_hosts or environ.get("STEPSTREAM_ALLOWED_HOSTS"), arguments.host, token
    )
    if wrong := [name for name in allowed_hosts or () if set(":*/[]@") & set(name)]:
        problems.append(
            f"--allowed-hosts takes names such as tracker.example, without port or wildcard: not {wrong[0]}"
        )
    if old_tokens and not token:
        problems.append("STEPSTREAM_OLD_TOKENS is for when there is a new one: set STEPSTREAM_TOKEN")
    data_dir = _data_dir(arguments.data_dir, environ)
    artifact_root = arguments.artifact_root or environ.get("STEPSTREAM_ARTIFACT_ROOT") or f"file://{data_dir}/artifacts"
    try:
        artifacts = root.parse(artifact_root)
    except ValueError as error:
        problems.append(str(error))
    if not 0 <= arguments.port <= 65535:
        problems.append(f"--port must lie between 0 and 65535, not {arguments.port}")
    if not 1 <= workers <= MAX_WORKERS:
        problems.append(f"--workers must lie between 1 and {MAX_WORKERS}, not {workers}")
    if database_url and not database_url.startswith(("postgresql://", "postgres://")):
        problems.append("--database-url must begin with postgresql://, for example postgresql://user@host/database")
    if arguments.heartbeat_timeout <= 0 or arguments.drain_timeout < 0:
        problems.append("--heartbeat-timeout and --drain-timeout are positive seconds")
    if not token and not arguments.insecure and not is_loopback(arguments.host):
        problems.append(
            f"--host {arguments.host} is reachable from other machines and there is no token: set STEPSTREAM_TOKEN, "
            "or say --insecure if the network itself is trusted"
        )
    if problems:
        raise ServerSetupError("; ".join(problems))
    return ServerConfig(
        host=arguments.host,
        port=arguments.port,
        workers=workers,
        database_url=database_url,
        data_dir=data_dir,
        token=token,
        old_tokens=old_tokens,
        allowed_hosts=allowed_hosts,
        heartbeat_timeout_s=arguments.heartbeat_timeout,
        drain_s=arguments.drain_timeout,
        compaction=not arguments.no_compaction,
        artifact_root=artifacts,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _allowed_hosts(said: str | None, host: str, token: str | None) -> list[str] | None:
    if said:
        return [name for name in (one.strip().lower() for one in said.split(",")) if name]
    # What only this machine can reach, and everybody on it may use, is reached by the pages of its browsers, too.
    return [] if not token and is_loopback(host) else None


def _data_dir(given: Path | None, environ: Mapping[str, str]) -> Path:
    if given or environ.get("STEPSTREAM_DATA_DIR"):
        return Path(given or environ["STEPSTREAM_DATA_DIR"]).expanduser().absolute()
    base = environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "stepstream" / "server"
