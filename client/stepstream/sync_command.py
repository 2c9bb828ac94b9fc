"""The `stepstream sync` command: deliver what dead processes left in a spool."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from stepstream import settings
from stepstream.artifacts import leftovers
from stepstream.errors import SpoolDamaged
from stepstream.spool import adoption
from stepstream.sync import SyncReport, deliver_orphans
from stepstream.transport import Rejected, Transport, Unavailable


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("sync", help="deliver what killed processes left in the spool")
    parser.add_argument("directory", nargs="?", type=Path, help="the spool (default: STEPSTREAM_SPOOL_DIR)")
    parser.add_argument("--tracking-uri", help="deliver everything to this server, wherever it was meant to go")
    parser.add_argument("--everything", action="store_true", help="also what processes on other hosts left here")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a server (default: 60)")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    loaded = settings.load(os.environ, spool_dir=arguments.directory, tracking_uri=arguments.tracking_uri)
    report, failed = asyncio.run(_deliver(loaded, arguments))
    stored, problems, away = asyncio.run(_deliver_artifacts(loaded, arguments))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for problem in (*report.problems, *problems):
        print(f"left: {problem}", file=sys.stderr)
    print(f"{report.frames} frames of {report.segments} segments are on the server, {report.refused} were refused")
    if stored or problems:
        print(f"{stored} artifacts are stored")
    return 1 if failed or away or report.refused else 0


async def _deliver(loaded: settings.Settings, arguments: argparse.Namespace) -> tuple[SyncReport, bool]:
    """To the server that was named, or each segment to the one that it was meant for."""
    total, failed = SyncReport(), False
    servers = [arguments.tracking_uri] if arguments.tracking_uri else sorted(_servers(loaded.spool_dir))
    for server in servers:
        async with Transport(server.rstrip("/"), loaded.token) as transport:
            try:
                total += await deliver_orphans(
                    loaded.spool_dir,
                    transport,
                    tracking_uri=None if arguments.tracking_uri else server,
                    everything=arguments.everything,
                    patience_s=arguments.patience,
                    progress=_show,
                )
            except (Unavailable, Rejected) as error:
                failed = True
                print(f"{server}: {error}. What is left stays in {loaded.spool_dir}.", file=sys.stderr)
    return total, failed


async def _deliver_artifacts(loaded: settings.Settings, arguments: argparse.Namespace) -> tuple[int, list[str], bool]:
    """How many are stored, what is left and why, and whether a server was away."""
    stored, problems, away = 0, [], False
    for call in leftovers.find(loaded.spool_dir, everything=arguments.everything):
        server = (arguments.tracking_uri or call.tracking_uri).rstrip("/")
        try:
            done, failed = await leftovers.deliver(call, server, loaded.token)
        except (Unavailable, Rejected) as error:
            away = True
            problems.append(f"{len(call.files)} artifacts of run {call.run_id}: {server}: {error}")
            continue
        stored += done
        problems += failed
    return stored, problems, away


def _servers(directory: Path) -> set[str]:
    servers: set[str] = set()
    for path in adoption.find_segments(directory):
        try:
            servers.add(adoption.header_of(path).tracking_uri)
        except (OSError, SpoolDamaged) as error:
            print(f"left: {path.name}: {error}", file=sys.stderr)
    return servers


def _show(report: SyncReport) -> None:
    if sys.stderr.isatty():
        print(f"\r  {report.frames:,} frames of {report.segments:,} segments", end="", file=sys.stderr, flush=True)
