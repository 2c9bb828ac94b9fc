"""What autologging of a framework leaves behind; run by a Python that has MLflow: URL, framework."""

import importlib.util
import sys

import mlflow
import numpy as np
from mlflow import MlflowClient

url, framework = sys.argv[1], sys.argv[2]
if importlib.util.find_spec(framework) is None:
    print("not installed:", framework)
    sys.exit()

mlflow.set_tracking_uri(url)
experiment = mlflow.set_experiment(f"autolog {framework}")
client = MlflowClient()
three = mlflow.__version__.startswith("3.")
ROUNDS = 12

rng = np.random.default_rng(7)
features = rng.normal(size=(200, 4))
target = (features[:, 0] + features[:, 1] > 0).astype(int)
train, test = (features[:150], target[:150]), (features[150:], target[150:])


def with_sklearn():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    mlflow.sklearn.autolog()
    search = GridSearchCV(RandomForestClassifier(n_estimators=5, random_state=1), {"max_depth": [2, 3]}, cv=2)
    with mlflow.start_run() as run:
        search.fit(*train)
        search.score(*test)
    children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert {child.data.params["max_depth"] for child in children} == {"2", "3"}, children
    logged = client.get_run(run.info.run_id)
    assert logged.data.params["best_max_depth"] in {"2", "3"}, logged.data.params
    assert logged.data.metrics["best_cv_score"] > 0.5, logged.data.metrics
    assert any(name.endswith("score_X_test") or "GridSearchCV_score" in name for name in logged.data.metrics), logged
    return run.info.run_id, search.predict(test[0]), {}


def with_xgboost():
    import xgboost

    mlflow.xgboost.autolog()
    with mlflow.start_run() as run:
        booster = xgboost.train(
            {"max_depth": 2, "objective": "binary:logistic", "eval_metric": ["logloss", "error"]},
            xgboost.DMatrix(*train),
            num_boost_round=ROUNDS,
            evals=[(xgboost.DMatrix(*train), "train"), (xgboost.DMatrix(*test), "test")],
            verbose_eval=False,
        )
    per_round = {f"{place}-{metric}": ROUNDS for place in ("train", "test") for metric in ("logloss", "error")}
    return run.info.run_id, booster.predict(xgboost.DMatrix(test[0])), per_round | {"max_depth": "2"}


def with_lightgbm():
    import lightgbm

    mlflow.lightgbm.autolog()
    data = lightgbm.Dataset(*train)
    with mlflow.start_run() as run:
        booster = lightgbm.train(
            {"objective": "binary", "metric": ["binary_logloss", "auc"], "num_leaves": 4, "verbosity": -1},
            data,
            num_boost_round=ROUNDS,
            valid_sets=[data, lightgbm.Dataset(*test, reference=data)],
            valid_names=["train", "test"],
        )
    per_round = {f"{place}-{metric}": ROUNDS for place in ("train", "test") for metric in ("binary_logloss", "auc")}
    return run.info.run_id, booster.predict(test[0]), per_round | {"num_leaves": "4"}


run_id, predictions, wanted = {"sklearn": with_sklearn, "xgboost": with_xgboost, "lightgbm": with_lightgbm}[framework]()
run = client.get_run(run_id)
assert run.info.status == "FINISHED", run.info
for name, value in wanted.items():
    if isinstance(value, str):
        assert run.data.params[name] == value, run.data.params
    else:
        history = client.get_metric_history(run_id, name)
        assert [point.step for point in history] == list(range(value)), (name, history)
        assert history[-1].value == run.data.metrics[name]
assert run.inputs.dataset_inputs, "autologging names the data it saw"
if framework != "sklearn":
    files = {file.path for file in client.list_artifacts(run_id)}
    assert any("importance" in name for name in files), files

by_run = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
assert np.array_equal(by_run.predict(test[0]), predictions)
version = mlflow.register_model(f"runs:/{run_id}/model", f"best of {framework}")
client.transition_model_version_stage(version.name, version.version, "Production")
client.set_registered_model_alias(version.name, "champion", version.version)
by_alias = mlflow.pyfunc.load_model(f"models:/{version.name}@champion")
assert np.array_equal(by_alias.predict(test[0]), predictions)
assert by_alias.metadata.run_id == run_id

if three:
    models = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
    own = [model for model in models if (model.source_run_id, model.name) == (run_id, "model")]
    assert len(own) == 1, models
    assert str(own[0].status) == "READY", own[0]
    assert own[0].model_id in [output.model_id for output in run.outputs.model_outputs]
    again = mlflow.pyfunc.load_model(f"models:/{own[0].model_id}")
    assert np.array_equal(again.predict(test[0]), predictions)
print("all is well with", mlflow.__version__, framework)
