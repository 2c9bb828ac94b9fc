"""The `stepstream sync` command: deliver what dead processes left in a spool."""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from stepstream import credentials, settings
from stepstream.artifacts import leftovers
from stepstream.errors import ConfigurationError, SpoolDamaged
from stepstream.spool import adoption
from stepstream.sync import SyncReport, deliver_orphans
from stepstream.transport import Rejected, Transport, Unavailable

BUSY_WAIT_S: Final = 0.5
"""Between two looks at what another process is delivering."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("sync", help="deliver what ended runs and killed processes left in the spool")
    parser.add_argument("directory", nargs="?", type=Path, help="the spool (default: STEPSTREAM_SPOOL_DIR)")
    parser.add_argument("--tracking-uri", help="deliver everything to this server, wherever it was meant to go")
    parser.add_argument("--everything", action="store_true", help="also what processes on other hosts left here")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a server (default: 60)")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    loaded = settings.load(os.environ, spool_dir=arguments.directory, tracking_uri=arguments.tracking_uri)
    _check(loaded.spool_dir, is_named=arguments.directory is not None)
    report, failed = asyncio.run(_deliver(loaded, arguments))
    stored, problems, away = asyncio.run(_deliver_artifacts(loaded, arguments))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for problem in dict.fromkeys((*report.problems, *report.left, *problems)):
        print(f"left: {problem}", file=sys.stderr)
    for sentence in dict.fromkeys(report.hidden):
        print(sentence, file=sys.stderr)
    print(f"{report.frames} frames of {report.segments} segments are on the server, {report.refused} were refused")
    if report.left or report.damaged:
        print(f"{len(set(report.left))} segments with frames are left, {report.damaged} are damaged and kept")
    if stored or problems:
        print(f"{stored} artifacts are stored")
    return 1 if failed or away or report.refused or report.damaged or report.left or problems else 0


def _check(directory: Path, *, is_named: bool) -> None:
    """Raises ConfigurationError. Where nothing was ever logged from there is none, unless somebody named it."""
    try:
        with os.scandir(directory):
            pass
    except FileNotFoundError:
        if is_named:
            raise ConfigurationError(
                f"{directory} is not there: name the spool of the runs (STEPSTREAM_SPOOL_DIR)"
            ) from None
    except OSError as error:
        raise ConfigurationError(
            f"the spool {directory} cannot be read: {error.strerror}. Nothing was delivered; what is there stays"
        ) from error


async def _deliver(loaded: settings.Settings, arguments: argparse.Namespace) -> tuple[SyncReport, bool]:
    """To the server that was named, or each segment to the one that it was meant for."""
    if arguments.tracking_uri:
        servers, total, failed = {loaded.tracking_uri}, SyncReport(), False
    else:
        servers, unread = _servers(loaded.spool_dir)
        total, failed = SyncReport(left=unread), False
    for server in sorted(servers):
        async with Transport(server.rstrip("/"), loaded.token) as transport:
            report, error = await _deliver_to(server, transport, loaded, arguments)
        total += report
        if error is not None:
            failed = True
            print(f"{credentials.without(server)}: {error}. What is left stays in {loaded.spool_dir}.", file=sys.stderr)
    return total, failed


async def _deliver_to(
    server: str, transport: Transport, loaded: settings.Settings, arguments: argparse.Namespace
) -> tuple[SyncReport, Unavailable | Rejected | None]:
    """Until nobody else is at it any more, or for as long as a server would be waited for; and what ended it early."""
    total = done = SyncReport()
    deadline = time.monotonic() + arguments.patience

    def progress(report: SyncReport) -> None:
        nonlocal done
        done = report
        _show(report)

    while True:
        try:
            report = await deliver_orphans(
                loaded.spool_dir,
                transport,
                tracking_uri=None if arguments.tracking_uri else server,
                everything=arguments.everything,
                patience_s=arguments.patience,
                progress=progress,
            )
        except (Unavailable, Rejected) as error:
            # The segments that were delivered before that are on the server all the same.
            return replace(total + done, left=total.left), error
        total = total.again(report)
        if not report.busy or time.monotonic() > deadline:
            return total, None
        done = SyncReport()
        await asyncio.sleep(BUSY_WAIT_S)


async def _deliver_artifacts(loaded: settings.Settings, arguments: argparse.Namespace) -> tuple[int, list[str], bool]:
    """How many are stored, what is left and why, and whether a server was away."""
    stored, problems, away = 0, [], False
    for call in leftovers.find(loaded.spool_dir, everything=arguments.everything):
        if isinstance(call, leftovers.Left):
            problems.append(f"{call.note.name}: {call.reason}")
            continue
        server = loaded.tracking_uri if arguments.tracking_uri else call.tracking_uri.rstrip("/")
        try:
            done, failed = await leftovers.deliver(call, server, loaded.token)
        except (Unavailable, Rejected) as error:
            away = True
            problems.append(f"{len(call.files)} artifacts of run {call.run_id}: {credentials.without(server)}: {error}")
            continue
        stored += done
        problems += failed
    return stored, problems, away


def _servers(directory: Path) -> tuple[set[str], tuple[str, ...]]:
    """Where the segments were meant to go, and those that do not say it."""
    servers: set[str] = set()
    unread: list[str] = []
    for path in adoption.find_segments(directory):
        try:
            servers.add(adoption.header_of(path).tracking_uri)
        except FileNotFoundError:
            continue  # delivered meanwhile
        except (OSError, SpoolDamaged) as error:
            unread.append(f"{path.name}: {error}")
    return servers, tuple(unread)


def _show(report: SyncReport) -> None:
    if sys.stderr.isatty():
        print(f"\r  {report.frames:,} frames of {report.segments:,} segments", end="", file=sys.stderr, flush=True)
