"""The `stepstream server` command."""

import argparse
import asyncio
import logging
import os
import sys

from stepstream_ingest import config
from stepstream_ingest.errors import IngestError
from stepstream_ingest.supervisor import serve


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("server", help="run the server, with a PostgreSQL of its own unless told of one")
    config.add_arguments(parser)
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s server %(levelname)s %(message)s", stream=sys.stderr)
    # What it writes, artifacts among it, is nobody else's on a machine that many use.
    os.umask(0o077)
    try:
        asyncio.run(serve(config.load(arguments, os.environ)))
    except IngestError as error:
        print(f"stepstream server: {error}", file=sys.stderr)
        return 1
    return 0
