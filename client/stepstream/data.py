"""Datasets for `log_input`: what a run has read, known by a name and a digest of its content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DIGEST_CHARS: Final = 16
HASHED_ROWS: Final = 10_000
"""Of a large table, so many from the beginning, with its length: a digest must not cost a pass over the data."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What can be said of a dataset; the profile and the schema are JSON."""

    name: str
    digest: str
    source: str
    source_type: str
    schema: str = ""
    profile: str = ""

    def to_dict(self) -> dict[str, str]:
        """As it is logged."""
        return dict(self.__dict__)


def from_pandas(df: Any, source: Any = None, name: str | None = None, digest: str | None = None) -> Dataset:
    """A table of pandas."""
    from pandas.util import hash_pandas_object

    hashed = hash_pandas_object(df.head(HASHED_ROWS), index=True).to_numpy().tobytes()
    columns = [{"name": str(column), "type": str(kind)} for column, kind in df.dtypes.items()]
    return Dataset(
        name=name or "dataset",
        digest=digest or _digest(hashed, len(df), columns),
        **_source(source),
        schema=json.dumps({"columns": columns}),
        profile=json.dumps({"num_rows": len(df), "num_elements": int(df.size)}),
    )


def from_numpy(
    features: Any, source: Any = None, targets: Any = None, name: str | None = None, digest: str | None = None
) -> Dataset:
    """Arrays of NumPy: features, and targets where there are any."""
    import numpy as np

    arrays = {"features": np.asarray(features)}
    if targets is not None:
        arrays["targets"] = np.asarray(targets)
    shapes = {key: {"shape": list(array.shape), "type": str(array.dtype)} for key, array in arrays.items()}
    hashed = b"".join(np.ascontiguousarray(array[:HASHED_ROWS]).tobytes() for array in arrays.values())
    return Dataset(
        name=name or "dataset",
        digest=digest or _digest(hashed, len(arrays["features"]), shapes),
        **_source(source),
        schema=json.dumps(shapes),
        profile=json.dumps({"num_rows": len(arrays["features"])}),
    )


def described(dataset: Any) -> dict[str, str]:
    """What a dataset of ours, of MLflow's, or a mapping says of itself."""
    said: Mapping[str, Any] = dataset if isinstance(dataset, Mapping) else dataset.to_dict()
    texts = {field: said.get(field) for field in ("name", "digest", "source", "source_type", "schema", "profile")}
    return {
        field: value if isinstance(value, str) else "" if value is None else json.dumps(value)
        for field, value in texts.items()
    }


def _source(source: Any) -> dict[str, str]:
    if source is None:
        return {"source": "", "source_type": "code"}
    text = str(source)
    if "://" in text:
        return {"source": json.dumps({"uri": text}), "source_type": text.partition("://")[0]}
    return {"source": json.dumps({"uri": text}), "source_type": "local"}


def _digest(hashed: bytes, rows: int, shape: Any) -> str:
    whole = hashlib.sha256(hashed)
    whole.update(json.dumps([rows, shape]).encode())
    return whole.hexdigest()[:DIGEST_CHARS]
