"""The `stepstream import` command."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepstream import settings
from stepstream.progress import Bar

if TYPE_CHECKING:
    from stepstream.importing.move import Artifacts, Source


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
    mlflow.add_argument("--again", action="store_true", help="take anew what is here already, too")
    mlflow.set_defaults(handler=_mlflow)
    tensorboard = kinds.add_parser("tensorboard", help="from a folder of event files")
    tensorboard.add_argument("folder", type=Path, help="what TensorBoard's --logdir is given")
    tensorboard.add_argument("--tracking-uri", help="the StepStream server (default: STEPSTREAM_TRACKING_URI)")
    tensorboard.add_argument("--experiment", help="where its runs go (default: the folder's name)")
    tensorboard.set_defaults(handler=_tensorboard)
    wandb = kinds.add_parser("wandb", help="from Weights & Biases' offline files")
    wandb.add_argument("folder", type=Path, help="the folder `wandb`, or anything above or below it that holds runs")
    wandb.add_argument("--tracking-uri", help="the StepStream server (default: STEPSTREAM_TRACKING_URI)")
    wandb.add_argument("--experiment", help="where its runs go (default: their project's name)")
    wandb.add_argument(
        "--artifacts", choices=("copy", "reference"), default="copy", help="or note where they are (default: copy)"
    )
    wandb.set_defaults(handler=_wandb)


def _mlflow(arguments: argparse.Namespace) -> int:
    from stepstream.importing.mlflow_source import MlflowSource, reading

    source = MlflowSource(arguments.source, copies=arguments.artifacts == "copy")
    with reading():
        return _take(arguments, source, arguments.artifacts, arguments.experiment, again=arguments.again)


def _tensorboard(arguments: argparse.Namespace) -> int:
    from stepstream.importing.tensorboard_source import TensorboardSource

    folder: Path = arguments.folder
    source = TensorboardSource(folder, arguments.experiment or folder.resolve().name)
    with _saying(source.problems):
        code = _take(arguments, source, "reference", [])
    if source.left_out:
        print(f"{source.left_out:,} histograms, images and other values that are no scalars were left out")
    _say_marked(source.marked)
    if source.odd_times:
        print(
            f"{source.odd_times:,} points say no time that could be one, and have the time of what was written before"
        )
    return 1 if source.problems else code


def _wandb(arguments: argparse.Namespace) -> int:
    from stepstream.importing.wandb_source import WandbSource

    bar = Bar("files")

    def show(read: int, files: int) -> None:
        bar.show(read, files, last=read == files)
        if read == files:
            bar.close()

    source = WandbSource(arguments.folder, arguments.experiment, show)
    with _saying(source.problems):
        code = _take(arguments, source, arguments.artifacts, [])
    _say_marked(source.marked)
    if source.left_out:
        print(f"{source.left_out:,} texts, images, tables and other values that are no numbers were left out")
    if source.artifacts:
        print(f"{source.artifacts:,} versions of W&B's artifacts were left out")
    return 1 if source.problems else code


@contextlib.contextmanager
def _saying(problems: Sequence[str]) -> Iterator[None]:
    """What has come to these by the end, also where an error is it: the next import may not come upon them again."""
    try:
        yield
    finally:
        for problem in problems:
            print(problem, file=sys.stderr)


def _say_marked(marked: Mapping[str, str]) -> None:
    for name, key in marked.items():
        print(f"{name!r:.300} is called {key!r} here: another name of the same run has its key")


def _take(
    arguments: argparse.Namespace,
    source: "Source",
    artifacts: "Artifacts",
    only: Sequence[str],
    *,
    again: bool = False,
) -> int:
    from stepstream.importing.move import Moved, move
    from stepstream.importing.target import Target
    from stepstream.query import Server

    loaded = settings.load(os.environ, tracking_uri=arguments.tracking_uri)
    bar = Bar("points")

    def show(moved: Moved) -> None:
        # Of how many, a source tells only once it has been read to its end.
        bar.show(moved.points, None)

    moved = Moved()
    with _saying(moved.problems), contextlib.closing(bar):
        target = Target(Server(loaded))
        move(source, target, loaded, artifacts=artifacts, only=only, again=again, moved=moved, progress=show)
    print(
        f"{moved.runs} runs of {moved.experiments} experiments were taken, with {moved.points:,} points and "
        f"{moved.files} files; {moved.skipped} runs were here already; {moved.logged_models} logged and "
        f"{moved.models} registered models"
    )
    return 1 if moved.problems else 0
