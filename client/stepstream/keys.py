"""What may name a metric, a param or a tag."""

from stepstream_schema import limits


def clean(value: object) -> str:
    """A value as text that every store takes: without NUL, and with what is no Unicode replaced."""
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def key_problem(key: object) -> str:
    """Why `key` cannot name a metric, param or tag; empty when it can."""
    if not isinstance(key, str):
        return f"a key must be text, not {type(key).__name__}"
    if not key or "\0" in key:
        return f"a key must be non-empty and hold no NUL character: {key[:40]!r}"
    if len(key) > limits.MAX_KEY_CHARS:
        return f"a key may have {limits.MAX_KEY_CHARS} characters, not {len(key)}: {key[:40]!r}..."
    try:
        key.encode()
    except UnicodeEncodeError:
        return f"a key must be valid Unicode text: {key[:40]!r}"
    return ""
