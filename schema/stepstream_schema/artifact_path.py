"""Paths of artifacts: where a file lies in the tree of its run. Pure; the client and the server ask the same rules."""

from typing import Final

MAX_PATH_BYTES: Final = 1000
"""As UTF-8: every store takes keys of 1024 bytes, and every file system paths of that length."""
MAX_DIRECTORIES: Final = 100
"""That one lies in: each of them is asked for when something is logged there."""
MAX_NAME_BYTES: Final = 255
"""One component: what ext4, XFS, APFS and NTFS take, so that whatever was logged can be downloaded."""


def problem(path: str) -> str | None:
    """What is wrong with `path`, as the end of a sentence that begins with it; None when it can be used."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "holds characters that are no Unicode text"
    if len(encoded) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "holds NUL or other control characters"
    if "\\" in path:
        return "holds a backslash; the parts of a path are separated by /"
    if path.startswith("/"):
        return "is absolute; paths are relative to the artifacts of the run"
    if path.count("/") > MAX_DIRECTORIES:
        return f"lies in more than {MAX_DIRECTORIES} directories"
    return next((found for found in map(_name_problem, path.split("/")) if found), None)


def is_within(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies below it; everything lies below ''."""
    return not directory or path == directory or path.startswith(directory + "/")


def directories(path: str) -> list[str]:
    """Those that it lies in, the outermost first: a/b/c in a and a/b."""
    return [path[:at] for at, character in enumerate(path) if character == "/"]


def _name_problem(name: str) -> str | None:
    if name in ("", ".", ".."):
        return "has a part that is empty, '.' or '..'"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has a part that is longer than {MAX_NAME_BYTES} bytes"
    return None
