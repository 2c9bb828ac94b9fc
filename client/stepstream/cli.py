"""The `stepstream` command; the server's part of it is found by entry point, so that the client does not need it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from stepstream import __version__
from stepstream.errors import StepStreamError

BUILT_IN: Final = {
    "artifacts": "stepstream.artifacts.command",
    "demo": "stepstream.demo.command",
    "gc": "stepstream.gc_command",
    "import": "stepstream.importing.command",
    "sync": "stepstream.sync_command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="stepstream", description="Log every step of every rank.")
    parser.add_argument("--version", action="version", version=f"stepstream {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in BUILT_IN.values():
        import_module(module).register(subparsers)
    for entry in entry_points(group="stepstream.commands"):
        _load(entry)(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.handler(parsed))
    except StepStreamError as error:
        print(f"stepstream: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _load(entry: Any) -> Callable[[Any], None]:
    """The command's `register`, or one that says what is missing to run it."""
    try:
        register: Callable[[Any], None] = entry.load()
        return register
    except ModuleNotFoundError as error:
        missing = error.name

        def explain(_: argparse.Namespace) -> int:
            print(
                f"stepstream {entry.name} needs the package {missing!r}, which the light client does not bring. "
                "Install it with: pip install 'stepstream[server]'",
                file=sys.stderr,
            )
            return 2

        def register_missing(subparsers: Any) -> None:
            parser = subparsers.add_parser(entry.name, help="(not installed: pip install 'stepstream[server]')")
            parser.add_argument("rest", nargs=argparse.REMAINDER)
            parser.set_defaults(handler=explain)

        return register_missing


if __name__ == "__main__":
    sys.exit(main())
