"""The `stepstream import` command."""

import argparse
import os
import sys

from stepstream import settings
from stepstream.progress import Bar


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("import", help="bring runs of another tracker")
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    mlflow = kinds.add_parser("mlflow", help="from a MLflow server, database or mlruns folder")
    mlflow.add_argument("--from", dest="source", required=True, help="tracking URI, database URL or folder")
    mlflow.add_argument("--tracking-uri", help="the StepStream server (default: STEPSTREAM_TRACKING_URI)")
    mlflow.add_argument("--experiment", action="append", default=[], help="this one alone; may be said again")
    mlflow.add_argument(
        "--artifacts", choices=("copy", "reference"), default="copy", help="or note where they are (default: copy)"
    )
    mlflow.set_defaults(handler=_mlflow)


def _mlflow(arguments: argparse.Namespace) -> int:
    from stepstream.importing.mlflow_source import MlflowSource, reading
    from stepstream.importing.move import Moved, move
    from stepstream.importing.target import Target
    from stepstream.query import Server

    loaded = settings.load(os.environ, tracking_uri=arguments.tracking_uri)
    bar = Bar("points")

    def show(moved: Moved) -> None:
        bar.show(moved.points, moved.points)

    source = MlflowSource(arguments.source)
    with reading():
        moved = move(
            source,
            Target(Server(loaded)),
            loaded,
            artifacts=arguments.artifacts,
            only=arguments.experiment,
            progress=show,
        )
    bar.close()
    for problem in moved.problems:
        print(problem, file=sys.stderr)
    print(
        f"{moved.runs} runs of {moved.experiments} experiments were taken, with {moved.points:,} points and "
        f"{moved.files} files; {moved.skipped} runs were here already; {moved.models} registered models"
    )
    return 1 if moved.problems else 0
