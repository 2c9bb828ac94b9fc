"""The `stepstream` command; the server's part of it is found by entry point, so that the client does not need it."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
    arguments = sys.argv[1:] if arguments is None else arguments
    for register in _registers(arguments[0] if arguments else None):
        register(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.handler(parsed))
    except StepStreamError as error:
        print(f"stepstream: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _registers(name: str | None) -> Iterator[Callable[[Any], None]]:
    """That of the command of this name, so that none waits for the imports of the others; else all, for the help."""
    commands: dict[str, Callable[[], Callable[[Any], None]]] = {
        built_in: partial(_built_in, module) for built_in, module in BUILT_IN.items()
    }
    commands |= {entry.name: partial(_load, entry) for entry in entry_points(group="stepstream.commands")}
    for find in [commands[name]] if name in commands else commands.values():
        yield find()


def _built_in(module: str) -> Callable[[Any], None]:
    register: Callable[[Any], None] = import_module(module).register
    return register


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
