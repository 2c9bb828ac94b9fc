"""The store that an artifact root names; heavy libraries are imported only for the one that is used."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from stepstream_ingest.artifacts.stores.root import ArtifactRoot
from stepstream_ingest.artifacts.stores.store import Store
from stepstream_ingest.errors import ServerSetupError


def check(root: ArtifactRoot, environ: Mapping[str, str]) -> None:
    """Raise ServerSetupError where the server could never use the store."""
    needed = {"s3": "aiobotocore", "gs": "google.cloud.storage", "azure": "azure.storage.blob"}.get(root.kind)
    extra = {"s3": "server", "gs": "gcs", "azure": "azure"}.get(root.kind)
    if needed and not _installed(needed):
        raise ServerSetupError(
            f"--artifact-root {root.kind}:// needs a library; install it: pip install 'stepstream[{extra}]'"
        )
    if root.kind == "azure" and not environ.get("AZURE_STORAGE_CONNECTION_STRING"):
        raise ServerSetupError("--artifact-root azure:// needs AZURE_STORAGE_CONNECTION_STRING, with an account key")
    if root.kind == "file":
        try:
            Path(root.prefix).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServerSetupError(f"artifacts cannot be kept in {root.prefix}: {error.strerror}") from error


def open_store(root: ArtifactRoot, secret: bytes, environ: Mapping[str, str]) -> Store:
    """The store."""
    match root.kind:
        case "s3":
            from stepstream_ingest.artifacts.stores.s3 import S3Store

            return S3Store(root, environ)
        case "gs":
            from stepstream_ingest.artifacts.stores.gcs import GcsStore

            return GcsStore(root, environ)
        case "azure":
            from stepstream_ingest.artifacts.stores.azure import AzureStore

            return AzureStore(root, environ)
        case "file":
            from stepstream_ingest.artifacts.stores.directory import DirectoryStore

            return DirectoryStore(Path(root.prefix), secret)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
