"""What a metric, param or tag of another tracker is called here. Pure."""

import posixpath
import re
from typing import Final

from stepstream_schema import limits

FORBIDDEN: Final = re.compile(r"[^/\w.\- :]")


def key_of(name: str) -> str:
    """A key for any name: what no key may have becomes `_`, and a path is made plain."""
    plain = posixpath.normpath(FORBIDDEN.sub("_", name)).lstrip("/")
    # The cut may have left a path that is not plain.
    plain = posixpath.normpath(plain[: limits.MAX_KEY_CHARS])
    while plain.startswith("../"):
        plain = plain.removeprefix("../")
    return "_" + plain[2:] if plain.startswith("..") else plain if plain != "." else "_"
