"""Datasets: whatever a table or an array holds, it has a digest, which is that of its content in every process."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stepstream import data
from stepstream.errors import ConfigurationError

ODD = """
import numpy as np, pandas as pd
from stepstream import data

class Thing:
    pass

def digests():
    cells = pd.DataFrame({"a": [[1, 2], ["x"]], "b": [{"k": {"u", "v", "w"}}, {}], "c": [np.ones(2000), Thing()]})
    return [
        data.from_pandas(cells).digest,
        data.from_numpy(np.array(["x", "yy", None], dtype=object)).digest,
        data.from_numpy(np.array([Thing(), {"u", "v", "w"}], dtype=object)).digest,
        data.from_numpy(np.array([("x", 1)], dtype=[("a", object), ("b", int)])).digest,
        data.from_numpy(np.array(["x" * 50, "y"], dtype=np.dtypes.StringDType())).digest,
    ]
"""


def test_a_digest_of_odd_content_is_the_same_in_every_process() -> None:
    here: dict[str, Any] = {"__name__": "__main__"}
    exec(ODD, here)
    environ = os.environ | {"PYTHONHASHSEED": "77"}
    said = subprocess.check_output([sys.executable, "-c", ODD + "print(*digests())"], env=environ, text=True)
    assert said.split() == here["digests"]()


@pytest.mark.parametrize(
    ("one", "other"),
    [([1, 2], [1, 3]), ({"a": 1}, {"a": 2}), (np.arange(5000), np.append(np.arange(4999), 0)), ({1}, {2})],
)
def test_cells_that_cannot_be_hashed_count_by_their_content(one: Any, other: Any) -> None:
    same, again, differs = (data.from_pandas(pd.DataFrame({"a": [cell, 1]})).digest for cell in (one, one, other))
    assert same == again != differs
    columns = pd.DataFrame([[one, 1, one]], columns=["a", "b", "a"], index=pd.Index([(1, [2])], tupleize_cols=False))
    assert json.loads(data.from_pandas(columns).profile) == {"num_rows": 1, "num_elements": 3}


def test_a_table_is_described_as_by_mlflow() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1], "z": [0, 1]})
    said = data.from_pandas(table, "s3://b/t.csv", "y", "rows", "d", "z")
    assert (said.name, said.digest, json.loads(said.source)) == ("rows", "d", {"uri": "s3://b/t.csv"})
    assert (json.loads(said.schema)["targets"], json.loads(said.schema)["predictions"]) == ("y", "z")
    assert data.from_pandas(table).digest == data.from_pandas(table, targets="y").digest
    for wrong in ({"targets": "w"}, {"predictions": "w"}):
        with pytest.raises(ConfigurationError, match="no column 'w'"):
            data.from_pandas(table, **wrong)


def test_arrays_of_every_shape_have_a_digest() -> None:
    named = data.from_numpy({"b": np.zeros((3, 2)), "a": np.ones(3)}, targets={"y": np.zeros(3)})
    assert named.digest == data.from_numpy({"a": np.ones(3), "b": np.zeros((3, 2))}, targets={"y": np.zeros(3)}).digest
    assert named.digest != data.from_numpy({"a": np.ones(3), "b": np.ones((3, 2))}, targets={"y": np.zeros(3)}).digest
    assert json.loads(named.schema)["features"]["b"] == {"shape": [3, 2], "type": "float64"}
    assert json.loads(named.profile) == {"num_rows": 3}
    assert json.loads(data.from_numpy(np.float32(4)).profile) == {"num_rows": 1}
    assert data.from_numpy(np.float32(4)).digest != data.from_numpy(np.float32(5)).digest


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_array", "csc_array"])
def test_a_sparse_matrix_has_the_digest_of_its_content(kind: str) -> None:
    make = getattr(pytest.importorskip("scipy.sparse", reason="SciPy is not installed"), kind)
    one, same, other = np.eye(4), np.eye(4), np.diag([1.0, 1, 1, 2])
    digests = [data.from_numpy(make(array)).digest for array in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    assert json.loads(data.from_numpy(make(one)).schema) == {"features": {"shape": [4, 4], "type": "float64"}}


def test_plain_tables_and_arrays_keep_the_digest_they_had() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]})
    assert data.from_pandas(table).digest == "089cab3f9aeff7db"
    assert data.from_numpy(np.arange(6).reshape(3, 2), targets=np.zeros(3)).digest == "7627c96835a6fc82"
