"""The `stepstream gc` command: remove what was deleted, and what nothing refers to."""

import argparse
import os
from typing import Any, Final

from stepstream import settings
from stepstream.progress import Bar
from stepstream.query import Server
from stepstream_schema import paths

HOUR_S: Final = 3600


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "gc", help="remove deleted runs, deleted logged models and unreferenced artifacts for good"
    )
    parser.add_argument("--tracking-uri", help="the server (default: STEPSTREAM_TRACKING_URI)")
    parser.add_argument(
        "--older-than", type=int, default=0, metavar="DAYS", help="what was deleted so long ago (default: 0)"
    )
    parser.add_argument(
        "--grace", type=float, default=24.0, metavar="HOURS", help="keep younger bytes of no artifact (default: 24)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    server = Server(settings.load(os.environ, tracking_uri=arguments.tracking_uri))
    _runs(server, arguments.older_than, dry_run=arguments.dry_run)
    _artifacts(server, arguments.grace * HOUR_S, dry_run=arguments.dry_run)
    return 0


def _runs(server: Server, older_than: int, *, dry_run: bool) -> None:
    asked = {"older_than_days": older_than}
    if dry_run:
        found = server.post(paths.GC, asked | {"dry_run": True})
        print(f"{found['runs']} deleted runs with {found['points']:,} compacted points would be removed")
        print(f"{found.get('models', 0)} deleted logged models would be removed")
        return
    bar = Bar("runs and models")
    runs = models = rows = 0
    while True:
        step = server.post(paths.GC, asked)
        runs += step["runs"]
        rows += step["rows"]
        # An older server leaves the models.
        models += step.get("models", 0)
        left = step["runs_left"] + step.get("models_left", 0)
        bar.show(runs + models, runs + models + left)
        if not left:
            break
    bar.close()
    print(f"{runs} deleted runs and {models} deleted logged models were removed, {rows:,} rows")


def _artifacts(server: Server, grace_s: float, *, dry_run: bool) -> None:
    asked: dict[str, Any] = {"grace_s": grace_s, "dry_run": dry_run, "after": ""}
    total = dict.fromkeys(("uploads", "objects", "orphans", "bytes"), 0)
    bar = Bar("objects and uploads")
    try:
        while asked["after"] is not None:
            step = server.post(paths.ARTIFACT_GC, asked)
            total = {name: count + step[name] for name, count in total.items()}
            asked["after"] = step["next"]
            bar.show(total["uploads"] + total["objects"] + total["orphans"], None)
    finally:
        # Also where the store has not let everything go, which is told by the last step.
        bar.close()
        found = "{objects} objects of no artifact, {uploads} abandoned uploads and {orphans} unknown objects"
        print(f"{found.format(**total)} {'would be' if dry_run else 'were'} removed, {total['bytes']:,} bytes")
