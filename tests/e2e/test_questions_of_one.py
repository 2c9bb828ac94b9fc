"""Where a list is meant and one text or number is said, that one is asked for, and not its letters."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.e2e.test_sdk import environment, python
from tests.servers import ServerProcess

ASKED = """
import json
import numpy as np
import stepstream as mlflow

client = mlflow.MlflowClient()
ids = {}
while len(ids) < 3 or int(max(ids, key=int)) < 12:
    name = f"e{len(ids)}"
    ids[client.create_experiment(name)] = name
for own in ids:
    mlflow.set_experiment(experiment_id=own)
    with mlflow.start_run(run_name=ids[own]) as run:
        for key in ("loss", "l", "o", "s"):
            run.log({key: 1.0, "n": int(own)}, step=0)
        client.create_logged_model(own, name=f"model{ids[own]}")
        client.log_table(run.run_id, {"a": [1]}, "t.json")

def runs(said, **more):
    return [one.data.metrics["n"] for one in mlflow.search_runs(said, output_format="list", **more)]

def models(said):
    return [one.experiment_id for one in mlflow.search_logged_models(said, output_format="list")]

wanted = max(ids, key=int)
print(json.dumps({
    "wanted": int(wanted),
    "runs": [runs(said) for said in (wanted, int(wanted), np.int64(wanted), [wanted], (int(wanted),))],
    "named": runs(None, experiment_names=ids[wanted]),
    "order": runs(list(ids), order_by="metrics.n DESC") == sorted(map(float, ids), reverse=True),
    "models": [models(said) for said in (wanted, int(wanted), [wanted])],
    "history": run.history("loss")["key"].tolist(),
    "table": list(mlflow.load_table("t.json", run.run_id, "run_id")["run_id"]) == [run.run_id],
}))
"""


def test_one_text_or_number_is_asked_for_as_a_list_of_it(
    server_factory: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    found = json.loads(python(ASKED, environment(server_factory(), tmp_path)))
    wanted = found.pop("wanted")
    assert found == {
        "runs": [[wanted]] * 5,
        "named": [wanted],
        "order": True,
        "models": [[str(wanted)]] * 3,
        "history": ["loss"],
        "table": True,
    }
