"""Datasets for `log_input`: what a run has read, known by a name and a digest of its content."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepstream.errors import ConfigurationError

DIGEST_CHARS: Final = 16
HASHED_ROWS: Final = 10_000
"""Of a large table, so many from the beginning, with its length: a digest must not cost a pass over the data."""

SPARSE: Final = "tocsr"
"""What SciPy's sparse matrices and arrays have."""
ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
"""In the usual text of an object."""


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


def from_pandas(
    df: Any,
    source: Any = None,
    targets: str | None = None,
    name: str | None = None,
    digest: str | None = None,
    predictions: str | None = None,
) -> Dataset:
    """A table of pandas; `targets` and `predictions` name columns. Raises ConfigurationError for one that is none."""
    columns = [{"name": str(column), "type": str(kind)} for column, kind in df.dtypes.items()]
    roles = {"targets": targets, "predictions": predictions}
    roles = {role: column for role, column in roles.items() if column is not None}
    for role, column in roles.items():
        if column not in df.columns:
            raise ConfigurationError(f"{role}: the table has no column {column!r}; it has {list(df.columns)[:20]}")
    return Dataset(
        name=name or "dataset",
        digest=digest or _digest(_hashed_table(df.head(HASHED_ROWS)), len(df), columns),
        **_source(source),
        schema=json.dumps({"columns": columns} | {role: str(column) for role, column in roles.items()}),
        profile=json.dumps({"num_rows": len(df), "num_elements": int(df.size)}),
    )


def from_numpy(
    features: Any, source: Any = None, targets: Any = None, name: str | None = None, digest: str | None = None
) -> Dataset:
    """Arrays of NumPy: features, and targets where there are any; each an array, or a mapping of arrays by name."""
    given = {"features": _arrays(features)} | ({} if targets is None else {"targets": _arrays(targets)})
    shapes = {part: _shape(said) for part, said in given.items()}
    hashed = b"".join(_hashed(said) for said in given.values())
    rows = _rows(given["features"])
    return Dataset(
        name=name or "dataset",
        digest=digest or _digest(hashed, rows, shapes),
        **_source(source),
        schema=json.dumps(shapes),
        profile=json.dumps({"num_rows": rows}),
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


def _arrays(said: Any) -> Any:
    """An array, a sparse matrix, or a dict of such in the order of their names."""
    import numpy as np

    if isinstance(said, Mapping):
        return {str(key): _arrays(said[key]) for key in sorted(said, key=str)}
    return said if hasattr(said, SPARSE) else np.asarray(said)


def _shape(said: Any) -> dict[str, Any]:
    if isinstance(said, dict):
        return {name: _shape(array) for name, array in said.items()}
    return {"shape": list(said.shape), "type": str(said.dtype)}


def _rows(said: Any) -> int:
    if isinstance(said, dict):
        return max(map(_rows, said.values()), default=0)
    return int(said.shape[0]) if said.shape else 1


def _hashed(said: Any) -> bytes:
    """The first rows as bytes that say what they hold, and nothing of where it lies in memory."""
    import numpy as np

    if isinstance(said, dict):
        return b"".join(map(_hashed, said.values()))
    if hasattr(said, SPARSE):
        # Its entries, in one order, whichever form it has.
        held = said.tocsr()[:HASHED_ROWS].tocoo()
        held.sum_duplicates()
        return b"".join(np.ascontiguousarray(part).tobytes() for part in (held.row, held.col, held.data))
    first = np.ascontiguousarray(said)[:HASHED_ROWS]
    # Of objects, and of NumPy's own texts, the bytes are addresses.
    has_addresses = first.dtype.hasobject or first.dtype.kind == "T"
    return _text(first.tolist()).encode(errors="replace") if has_addresses else first.tobytes()


def _hashed_table(first: Any) -> bytes:
    import pandas
    from pandas.util import hash_pandas_object

    try:
        return bytes(hash_pandas_object(first, index=True).to_numpy().tobytes())
    except (TypeError, ValueError):
        # Cells such as lists have no hash. By position: names of columns may stand there twice.
        columns = [_hashable(first.iloc[:, place]) for place in range(first.shape[1])]
        columns.append(_hashable(first.index.to_series()))
        texts = pandas.DataFrame({place: column.to_numpy() for place, column in enumerate(columns)})
        return bytes(hash_pandas_object(texts, index=False).to_numpy().tobytes())


def _hashable(column: Any) -> Any:
    from pandas.util import hash_pandas_object

    try:
        hash_pandas_object(column, index=False)
    except (TypeError, ValueError):
        return column.map(_text)
    return column


def _text(value: Any) -> str:
    """What a value says of its content: the same in every process, which addresses and the order of a set are not."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(_hashed(value)).hexdigest()}"
    if isinstance(value, Mapping):
        return repr([(_text(key), _text(one)) for key, one in value.items()])
    if isinstance(value, list | tuple):
        return repr([_text(one) for one in value])
    if isinstance(value, set | frozenset):
        return repr(sorted(map(_text, value)))
    return ADDRESS.sub("", str(value))


def _digest(hashed: bytes, rows: int, shape: Any) -> str:
    whole = hashlib.sha256(hashed)
    whole.update(json.dumps([rows, shape]).encode())
    return whole.hexdigest()[:DIGEST_CHARS]
