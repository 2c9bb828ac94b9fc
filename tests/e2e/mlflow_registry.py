"""What the unmodified MLflow client does with the model registry; run by a Python that has it: URL."""

import sys

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("registry")
client = MlflowClient()
three = mlflow.__version__.startswith("3.")


def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except MlflowException as error:
        found = error.error_code
    else:
        found = "nothing"
    assert found == code, (call, found)


features = np.arange(10, dtype=float).reshape(-1, 1)
model = LinearRegression().fit(features, 3 * features[:, 0])
with mlflow.start_run() as run:
    where = {"name": "model"} if three else {"artifact_path": "model"}
    # Said, not inferred: autologging infers them, by a process that loads everything anew.
    named = {"registered_model_name": "prices", "pip_requirements": ["scikit-learn"]}
    info = mlflow.sklearn.log_model(model, **named, **where)
    second = mlflow.register_model(info.model_uri, "prices", tags={"team": "a"})

assert second.version in ("2", 2)
assert second.run_id == run.info.run_id
points = np.array([[7.0], [8.0]])

client.set_registered_model_alias("prices", "champion", "2")
loaded = mlflow.pyfunc.load_model("models:/prices@champion")
assert np.array_equal(loaded.predict(points), model.predict(points))
assert client.get_model_version_by_alias("prices", "champion").version in ("2", 2)
assert client.get_registered_model("prices").aliases == {"champion": "2"} or client.get_registered_model(
    "prices"
).aliases == {"champion": 2}
client.delete_registered_model_alias("prices", "champion")
refused("INVALID_PARAMETER_VALUE", client.get_model_version_by_alias, "prices", "champion")
refused("INVALID_PARAMETER_VALUE", client.set_registered_model_alias, "prices", "latest", "1")
refused("RESOURCE_DOES_NOT_EXIST", client.set_registered_model_alias, "prices", "x", "9")

client.transition_model_version_stage("prices", "1", "Staging")
client.transition_model_version_stage("prices", "2", "staging", archive_existing_versions=True)
assert client.get_model_version("prices", "1").current_stage == "Archived"
assert [one.version for one in client.get_latest_versions("prices", ["Staging"])] in (["2"], [2])
assert np.array_equal(mlflow.sklearn.load_model("models:/prices/Staging").predict(points), model.predict(points))
assert np.array_equal(mlflow.sklearn.load_model("models:/prices/1").predict(points), model.predict(points))
assert np.array_equal(mlflow.sklearn.load_model("models:/prices/latest").predict(points), model.predict(points))
refused("INVALID_PARAMETER_VALUE", client.transition_model_version_stage, "prices", "1", "Nowhere")

client.update_registered_model("prices", "what houses cost")
client.update_model_version("prices", "1", "the first")
client.set_registered_model_tag("prices", "owner", "me")
client.set_model_version_tag("prices", "1", "checked", "yes")
found = client.get_registered_model("prices")
assert (found.description, found.tags) == ("what houses cost", {"owner": "me"})
one = client.get_model_version("prices", "1")
assert one.description == "the first"
assert one.tags["checked"] == "yes"
client.delete_model_version_tag("prices", "1", "checked")
client.delete_registered_model_tag("prices", "owner")
assert client.get_registered_model("prices").tags == {}

client.create_registered_model("other", tags={"kind": "toy"})
refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, "other")
refused("INVALID_PARAMETER_VALUE", client.create_registered_model, "a/b")
refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, "none")


def names(text="", **named):
    return [found.name for found in client.search_registered_models(filter_string=text, **named)]


assert names() == ["other", "prices"]
assert names("name LIKE 'p%'") == ["prices"]
assert names("name ILIKE 'P%'") == ["prices"]
assert names("tags.kind = 'toy'") == ["other"]
assert names(order_by=["name DESC"]) == ["prices", "other"]
refused("INVALID_PARAMETER_VALUE", client.search_registered_models, filter_string="description = 'x'")
page = client.search_registered_models(max_results=1)
assert page.token
assert [found.name for found in client.search_registered_models(max_results=1, page_token=page.token)] == ["prices"]


def versions(text):
    return sorted(int(found.version) for found in client.search_model_versions(text))


assert versions("name = 'prices'") == [1, 2]
assert versions(f"run_id = '{run.info.run_id}'") == [1, 2]
assert versions("name = 'prices' AND version_number > 1") == [2]
assert versions("tags.team = 'a'") == [2]
assert versions("run_id IN ('x', 'y')") == []

copied = client.copy_model_version("models:/prices/2", "copies")
assert copied.run_id == run.info.run_id
assert np.array_equal(mlflow.sklearn.load_model("models:/copies/1").predict(points), model.predict(points))
assert client.get_model_version_download_uri("copies", "1") == client.get_model_version_download_uri("prices", "2")

client.rename_registered_model("other", "renamed")
assert names() == ["copies", "prices", "renamed"]
client.delete_model_version("prices", "2")
refused("RESOURCE_DOES_NOT_EXIST", client.get_model_version, "prices", "2")
again = client.create_model_version("prices", f"runs:/{run.info.run_id}/model", run.info.run_id)
assert again.version in ("3", 3), again.version
assert again.status == "READY"
refused("INVALID_PARAMETER_VALUE", client.create_model_version, "prices", "/etc/passwd")
refused("INVALID_PARAMETER_VALUE", client.create_model_version, "prices", f"runs:/{'0' * 32}/m", run.info.run_id)
if hasattr(client, "register_prompt"):
    refused("NOT_IMPLEMENTED", client.register_prompt, "greeting", "Hello {{name}}")
client.delete_registered_model("renamed")
assert names() == ["copies", "prices"]
print("all is well with", mlflow.__version__)
