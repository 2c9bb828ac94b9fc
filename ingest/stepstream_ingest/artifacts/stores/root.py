"""Where artifacts go: what `--artifact-root` says. Pure."""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

Kind = Literal["s3", "gs", "azure", "file"]
FORMS: Final = "s3://bucket/prefix, gs://bucket/prefix, azure://container/prefix or file:///directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRoot:
    """One place in one store."""

    kind: Kind
    bucket: str
    """Bucket or container; of a directory, nothing."""
    prefix: str
    """Before every key, without slashes at its ends; of a directory, its absolute path."""

    def key(self, key: str) -> str:
        """The key as the store sees it."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def own(self, full: str) -> str:
        """The other way round."""
        return full[len(self.prefix) + 1 :] if self.prefix else full


def parse(text: str) -> ArtifactRoot:
    """The root that `text` names. Raises ValueError that says what is expected."""
    parts = urlsplit(text)
    path = unquote(parts.path)
    match parts.scheme:
        case "file" if path.startswith("/") and not parts.netloc:
            return ArtifactRoot(kind="file", bucket="", prefix=path.rstrip("/") or "/")
        case "s3" | "gs" | "azure" if parts.netloc and not parts.query:
            return ArtifactRoot(kind=parts.scheme, bucket=parts.netloc, prefix=path.strip("/"))
    raise ValueError(f"--artifact-root is {FORMS}, not {text!r}")
