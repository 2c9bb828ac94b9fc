"""What the unmodified MLflow client does with artifacts; run by a Python that has it: URL, scratch directory."""

import os
import sys
from pathlib import Path

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression

url, scratch = sys.argv[1], Path(sys.argv[2])
mlflow.set_tracking_uri(url)
mlflow.set_experiment("artifacts")
client = MlflowClient()

tree = scratch / "tree"
(tree / "a" / "b").mkdir(parents=True)
(tree / "a" / "x.txt").write_text("hello")
(tree / "a" / "b" / "y.bin").write_bytes(os.urandom(3_000_000))
(tree / "a" / "ü #%25 z.txt").write_text("strange names")

with mlflow.start_run(run_name="first") as run:
    mlflow.log_param("lr", 0.1)
    mlflow.set_tag("team", "a")
    mlflow.log_artifact(str(tree / "a" / "x.txt"))
    mlflow.log_artifact(str(tree / "a" / "x.txt"), "sub/dir")
    mlflow.log_artifacts(str(tree / "a" / "b"), "tree/b")
    mlflow.log_text("hi", "notes/n.txt")
    mlflow.log_dict({"a": [1, 2]}, "notes/d.json")
    features = np.arange(10, dtype=float).reshape(-1, 1)
    model = LinearRegression().fit(features, 2 * features[:, 0])
    where = {"name": "model"} if mlflow.__version__.startswith("3.") else {"artifact_path": "model"}
    # Said, not inferred: autologging infers them, by a process that loads everything anew.
    info = mlflow.sklearn.log_model(model, pip_requirements=["scikit-learn"], **where)

run_id = run.info.run_id
stored = client.get_run(run_id)
assert stored.data.params == {"lr": "0.1"}, stored.data
assert stored.data.tags["team"] == "a"
assert stored.info.status == "FINISHED"
assert stored.info.run_name == "first"

top = {file.path: (file.is_dir, file.file_size) for file in client.list_artifacts(run_id)}
wanted = {"notes": (True, None), "sub": (True, None), "tree": (True, None), "x.txt": (False, 5)}
assert wanted.items() <= top.items(), top
assert [file.path for file in client.list_artifacts(run_id, "tree/b")] == ["tree/b/y.bin"]
assert [file.path for file in client.list_artifacts(run_id, "sub")] == ["sub/dir"]
assert mlflow.artifacts.load_dict(f"runs:/{run_id}/notes/d.json") == {"a": [1, 2]}

down = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="tree", dst_path=str(scratch / "down")))
assert (down / "b" / "y.bin").read_bytes() == (tree / "a" / "b" / "y.bin").read_bytes()

points = np.array([[7.0], [8.0]])
loaded = mlflow.pyfunc.load_model(info.model_uri)
assert np.array_equal(loaded.predict(points), model.predict(points))
again = mlflow.sklearn.load_model(f"runs:/{run_id}/model")
assert np.array_equal(again.predict(points), model.predict(points))

try:
    client.download_artifacts(run_id, "nothing/here.txt", str(scratch))
except (MlflowException, OSError):
    pass
else:
    raise AssertionError("a file that is not there was downloaded")

# Large files by signed URLs, in parts.
big = scratch / "big.bin"
big.write_bytes(os.urandom(23 * 2**20))
os.environ |= {
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(20 * 2**20),
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(8 * 2**20),
}
client.log_artifact(run_id, str(big), "large")
back = Path(client.download_artifacts(run_id, "large/big.bin", str(scratch / "down")))
assert back.read_bytes() == big.read_bytes()
print("all is well with", mlflow.__version__, run_id)
