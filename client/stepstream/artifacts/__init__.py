"""Files of a run: streamed to the object store and back. The functions have the names of `mlflow.artifacts`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepstream.artifacts.fetching import download_artifacts, list_artifacts, load_dict, load_text

__all__ = ["download_artifacts", "list_artifacts", "load_dict", "load_text"]


def __getattr__(name: str) -> Any:
    # What sends files must not load what asks questions.
    if name in __all__:
        from stepstream.artifacts import fetching

        return getattr(fetching, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
