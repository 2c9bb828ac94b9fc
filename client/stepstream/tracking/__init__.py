"""Asking and changing what the server knows: `MlflowClient`, and where the server is."""

from typing import TYPE_CHECKING, Any

from stepstream.place import (
    get_registry_uri,
    get_tracking_uri,
    is_tracking_uri_set,
    set_registry_uri,
    set_tracking_uri,
)

if TYPE_CHECKING:
    from stepstream.tracking.client import MlflowClient

__all__ = [
    "MlflowClient",
    "get_registry_uri",
    "get_tracking_uri",
    "is_tracking_uri_set",
    "set_registry_uri",
    "set_tracking_uri",
]


def __getattr__(name: str) -> Any:
    # Not before: one thread that loads the package, and another one its module, would wait for each other.
    if name == "MlflowClient":
        from stepstream.tracking.client import MlflowClient

        return MlflowClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
