"""The `stepstream artifacts` command: ls, get, put, rm."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from stepstream import settings
from stepstream.artifacts import tree
from stepstream.artifacts.download import download
from stepstream.artifacts.uploader import Uploader
from stepstream.errors import ArtifactError
from stepstream.notices import Notices
from stepstream.progress import Bar
from stepstream.query import Server
from stepstream.settings import Settings
from stepstream_schema import paths

POLL_S: Final = 0.1


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("artifacts", help="list, fetch, send and remove files of a run")
    parser.add_argument("--tracking-uri", help="the server (default: STEPSTREAM_TRACKING_URI)")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    ls = actions.add_parser("ls", help="list what lies in a directory")
    ls.add_argument("run_id")
    ls.add_argument("path", nargs="?", default="")
    ls.add_argument("-r", "--recursive", action="store_true", help="every file below it")
    ls.set_defaults(handler=_list)
    get = actions.add_parser("get", help="fetch a file, or everything below a directory")
    get.add_argument("run_id")
    get.add_argument("path", nargs="?", default="")
    get.add_argument("-o", "--output", type=Path, default=Path(), help="where to (default: here)")
    get.set_defaults(handler=_get)
    put = actions.add_parser("put", help="send a file or a directory")
    put.add_argument("run_id")
    put.add_argument("local", type=Path)
    put.add_argument("path", nargs="?", default="", help="the directory it goes to (default: the top)")
    put.add_argument("--patience", type=float, default=3600.0, help="seconds to try (default: an hour)")
    put.set_defaults(handler=_put)
    remove = actions.add_parser("rm", help="remove a file, or everything below a directory")
    remove.add_argument("run_id")
    remove.add_argument("path")
    remove.set_defaults(handler=_remove)


def _list(arguments: argparse.Namespace) -> int:
    server = Server(_settings(arguments))
    for file in server.pages(paths.run_artifacts(arguments.run_id), "files", _listing(arguments)):
        if file["is_dir"]:
            print(f"{file['size']:>15,}  {'(' + str(file['files']) + ' files)':<30}  {file['path']}/")
        else:
            print(f"{file['size']:>15,}  {file['content_type']:<30}  {file['path']}")
    return 0


def _get(arguments: argparse.Namespace) -> int:
    print(download(_settings(arguments), arguments.run_id, arguments.path, arguments.output))
    return 0


def _put(arguments: argparse.Namespace) -> int:
    loaded = _settings(arguments)
    # A mistyped id must not make a new run.
    Server(loaded).get(paths.run(arguments.run_id))
    uploader = Uploader(loaded, arguments.run_id, None, Notices())
    local: Path = arguments.local
    if tree.is_directory(local):
        handle = uploader.put_directory(local, arguments.path)
    else:
        handle = uploader.put_file(local, arguments.path)
    bar = Bar("MB", scale=10**6)
    deadline = time.monotonic() + arguments.patience
    while not handle.done and time.monotonic() < deadline:
        bar.show(handle.bytes_sent, max(handle.bytes_total, handle.bytes_sent))
        time.sleep(POLL_S)
    bar.close()
    uploader.stop()
    left, unsaved = uploader.left(), uploader.unsaved()
    for error in (*handle.errors, *unsaved):
        print(f"not stored: {error}", file=sys.stderr)
    if left:
        print(f"{len(left)} files could not be sent in time; stepstream sync sends them later", file=sys.stderr)
    if unsaved:
        print(f"{len(unsaved)} files could neither be sent nor noted in the spool; put them again", file=sys.stderr)
    print(f"{handle.files_stored} files are stored")
    return 1 if left or unsaved or handle.errors else 0


def _remove(arguments: argparse.Namespace) -> int:
    if not arguments.path.strip("/"):
        raise ArtifactError("name what to remove; all artifacts of a run go with the run")
    query = urlencode({"path": arguments.path.strip("/")})
    said = Server(_settings(arguments)).delete(f"{paths.run_artifacts(arguments.run_id)}?{query}")
    print(f"{said['removed']} files were removed; stepstream gc frees their space")
    return 0


def _listing(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"path": arguments.path.strip("/"), "recursive": 1 if arguments.recursive else None}


def _settings(arguments: argparse.Namespace) -> Settings:
    return settings.load(os.environ, tracking_uri=arguments.tracking_uri)
