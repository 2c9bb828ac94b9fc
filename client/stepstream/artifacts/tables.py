"""Tables as artifacts, in MLflow's form: JSON with the orientation `split`, or Parquet. Pure, but for pandas."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from stepstream.errors import ArtifactError, ConfigurationError

if TYPE_CHECKING:
    import pandas

SUFFIXES: Final = (".json", ".parquet")


def check_path(path: str) -> None:
    """Raises ArtifactError for a path that says no form."""
    if not path.endswith(SUFFIXES):
        raise ArtifactError(f"{path}: a table is stored as {' or '.join(SUFFIXES)}; call it so")


def appended(before: bytes | None, data: "pandas.DataFrame | Mapping[str, Any]", path: str) -> bytes:
    """The rows that are there, and these behind them. Raises ArtifactError for what is no table."""
    pandas = _pandas()
    rows = _table(data, path)
    if before is not None:
        rows = pandas.concat([loaded(before, path), rows], ignore_index=True)
    try:
        if path.endswith(".json"):
            return bytes(rows.to_json(orient="split", index=False, date_format="iso").encode())
        out = io.BytesIO()
        rows.to_parquet(out, index=False)
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{path}: this table cannot be stored: {error}") from error
    except ImportError as error:
        raise ConfigurationError("a table in Parquet needs pyarrow: pip install pyarrow") from error
    return out.getvalue()


def loaded(stored: bytes, path: str) -> "pandas.DataFrame":
    """The table behind what was stored. Raises ArtifactError for what holds none."""
    pandas = _pandas()
    try:
        if path.endswith(".json"):
            return pandas.read_json(io.BytesIO(stored), orient="split")
        return pandas.read_parquet(io.BytesIO(stored))
    except ValueError as error:
        raise ArtifactError(f"{path} holds no table: {error}") from error


def _table(data: Any, path: str) -> "pandas.DataFrame":
    pandas = _pandas()
    if isinstance(data, pandas.DataFrame):
        return data
    if not isinstance(data, Mapping):
        raise ArtifactError(f"{path}: a {type(data).__name__} is no table; log a pandas table, or a mapping of columns")
    try:
        return pandas.DataFrame(dict(data))
    except ValueError:
        # One row, each column with one value.
        return pandas.DataFrame([dict(data)])


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ConfigurationError("tables need pandas: pip install 'stepstream[dataframe]'") from error
    return pandas
