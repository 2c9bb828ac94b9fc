"""A source of MLflow's of its own, and `stepstream import mlflow` of it, as often as a test likes."""

import json
import os
import shutil
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import ServerProcess
from tests.warm import WarmPython

# What every scene begins with: a client of a source, and the command, which tells its code and what it says.
PRELUDE = """
import contextlib, io, json, sys, urllib.request
from pathlib import Path
from mlflow import MlflowClient
from stepstream import cli
source, folder, server = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
client, said = MlflowClient(source), []
def imported(*options):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["import", "mlflow", "--from", source, "--tracking-uri", server, *options])
    said.append((code, out.getvalue(), err.getvalue()))
def post(path, **body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request).read())
def tell(*more):
    print(json.dumps([said, *more]))
"""


@dataclass(frozen=True)
class Scene:
    """Runs a script on a source of its own, with the command."""

    python: WarmPython
    server: ServerProcess
    template: Path
    folder: Path

    @property
    def database(self) -> str:
        """A database of MLflow's, empty at first."""
        path = self.folder / "mlflow.db"
        if not path.exists():
            shutil.copy(self.template, path)
        return f"sqlite:///{path}"

    def play(self, script: str, source: str | None = None) -> list[Any]:
        """What it tells: what each import said, and whatever else."""
        environ = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "AWS_EC2_METADATA_DISABLED": "true"}
        given = [source or self.database, str(self.folder), self.server.url]
        done = self.python.run("-c", PRELUDE + script, *given, environ=environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return list(json.loads(done.stdout.splitlines()[-1]))

    def ask(self, path: str, **query: Any) -> Any:
        whole = f"{self.server.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(whole) as response:
            return json.loads(response.read())

    def versions(self, name: str) -> dict[str, Any]:
        found = self.ask("/api/2.0/mlflow/model-versions/search", filter=f"name = '{name}'")
        return {one["version"]: one for one in found.get("model_versions", [])}

    def model(self, name: str) -> Any:
        return self.ask("/api/2.0/mlflow/registered-models/get", name=name)["registered_model"]

    def aliases(self, name: str) -> dict[str, str]:
        return {one["alias"]: one["version"] for one in self.model(name).get("aliases", [])}

    def paths(self, run_id: str) -> list[str]:
        return [file["path"] for file in self.ask(f"/v1/runs/{run_id}/artifacts", recursive=1)["files"]]
