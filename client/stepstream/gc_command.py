"""The `stepstream gc` command: remove what was deleted."""

import argparse
import os
import sys
from typing import Final

from stepstream import settings
from stepstream.query import Server
from stepstream_schema import paths

BAR_WIDTH: Final = 30


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("gc", help="remove deleted runs for good")
    parser.add_argument("--tracking-uri", help="the server (default: STEPSTREAM_TRACKING_URI)")
    parser.add_argument("--older-than", type=int, default=0, metavar="DAYS", help="deleted so long ago (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    server = Server(settings.load(os.environ, tracking_uri=arguments.tracking_uri))
    asked = {"older_than_days": arguments.older_than}
    found = server.post(paths.GC, asked | {"dry_run": True})
    if arguments.dry_run:
        print(f"{found['runs']} deleted runs with {found['points']:,} compacted points would be removed")
        return 0
    runs = rows = 0
    while True:
        step = server.post(paths.GC, asked)
        runs += step["runs"]
        rows += step["rows"]
        _show(runs, step["runs_left"])
        if not step["runs_left"]:
            break
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{runs} deleted runs were removed, {rows:,} rows")
    return 0


def _show(done: int, left: int) -> None:
    if sys.stderr.isatty():
        filled = BAR_WIDTH * done // max(1, done + left)
        bar = "#" * filled + "-" * (BAR_WIDTH - filled)
        print(f"\r  [{bar}] {done:,} of {done + left:,} runs", end="", file=sys.stderr, flush=True)
