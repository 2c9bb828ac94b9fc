"""What a metric, param or tag of another tracker is called here. Pure."""

import hashlib
import posixpath
import re
from typing import Final

from stepstream_schema import limits

MARK_CHARS: Final = 8
"""Of a name's hash, where two names would have one key."""
FORBIDDEN: Final = re.compile(r"[^/\w.\- :]")


def key_of(name: str) -> str:
    """A key for any name: what no key may have becomes `_`, and a path is made plain."""
    plain = posixpath.normpath(FORBIDDEN.sub("_", name)).lstrip("/")
    # The cut may have left a path that is not plain.
    plain = posixpath.normpath(plain[: limits.MAX_KEY_CHARS])
    while plain.startswith("../"):
        plain = plain.removeprefix("../")
    return "_" + plain[2:] if plain.startswith("..") else plain if plain != "." else "_"


class Keys:
    """Of one run, or of one kind of them. Law: no two names have one key, and what comes first has the plain one."""

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}
        self._taken: set[str] = set()
        self.marked: dict[str, str] = {}
        """Names whose plain key another had, and what they are called instead."""

    def of(self, name: str) -> str:
        """A key for any name; the same whenever the same names came before."""
        known = self._keys.get(name)
        if known is not None:
            return known
        key, marks = key_of(name), MARK_CHARS
        while key in self._taken:
            mark = "-" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:marks]
            key = self.marked[name] = key_of(name)[: limits.MAX_KEY_CHARS - len(mark)] + mark
            # Another name may be just that.
            marks += 1
        self._keys[name] = key
        self._taken.add(key)
        return key
