"""The same calls, valid and invalid, drawn by hypothesis: the same answers, but for ids and times."""

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.differential.pair import Name, Pair

# On a busy machine the start of both servers and the searches of one test took 140 s together.
pytestmark = pytest.mark.timeout(600)

EXAMPLES: Final = 60
CALLS: Final = 14
"""Of an example, after those that make its experiment, runs and model."""
WANTED: Final = 300

KEYS: Final = st.sampled_from(
    ["loss", "val loss", "a/b", "top.5", "", "../x", "/abs", "a//b", "k" * 251, "ü", "bad$", "."]
)
VALUES: Final = st.sampled_from([0.5, -1, 0, "NaN", "Infinity", "-Infinity", "1.5", "abc", None, True, 1e400, [1]])
STEPS: Final = st.sampled_from([0, 1, -2, "3", 2**62, 2**63, "x", None, 1.5])
TIMES: Final = st.sampled_from([1, 0, 1_700_000_000_000, "17", -1, None, "soon"])
TEXTS: Final = st.sampled_from(["", "a", "16", "v" * 6001, "v" * 8001, "ünï", 5, None, ["a"], {"a": 1}])
WORDS: Final = TEXTS.filter(lambda one: one is None or isinstance(one, str))
LIMITS: Final = st.sampled_from([None, 0, 1, 2, 100, -1, "3", "x", 50_001, 10**7])
VIEWS: Final = st.sampled_from([None, "ACTIVE_ONLY", "DELETED_ONLY", "ALL", "BOGUS", 2])
STAGES: Final = st.sampled_from(["None", "Staging", "production", "Archived", "Bogus", "", None])
ALIASES: Final = st.sampled_from(["champion", "latest", "v1", "a b", "", None, "x" * 256])
VERSIONS: Final = st.sampled_from(["1", 1, "2", "99", "x", "", None, "0", "-1"])
PLACES: Final = ("<run 0>/artifacts", "<run 1>/artifacts", "models/<model 0>/artifacts", "other")
SOURCES: Final = st.sampled_from(
    [
        *("s3://b/m", "", None, "s3://b/../m", "s3://b", "s3://b/%2e%2e/m", "s3:m", "/abs", "file:///x", "x:/y"),
        *("runs:/<run 0>/m", "runs:/<run 1>/m", "runs://h/<run 0>/m", "runs:/none", "RUNS:/<run 0>/m"),
        *("models:/<model 0>", "models:/<model 1>", "models:/none", "models:/a/b/c", "models:/"),
        *(f"mlflow-artifacts:/<experiment 0>/{place}/m" for place in PLACES),
        "http://h/api/2.0/mlflow-artifacts/artifacts/<experiment 0>/<run 0>/artifacts/m",
    ]
)
MODEL_STATUSES: Final = st.sampled_from(["LOGGED_MODEL_READY", 2, "LOGGED_MODEL_UPLOAD_FAILED", 3, "BOGUS", None])
STATUSES: Final = st.sampled_from(["RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED", "BOGUS", 3, 9, None])

_examples = itertools.count(1)
_asked: list[str] = []
_needed: set[str] = set()
"""Allowances that were made use of."""
_differ: list[str] = []
"""Found differences: all of them are told, and none is shrunk, for the servers remember what they were asked."""


def said(**fields: Any) -> "st.SearchStrategy[dict[str, Any]]":
    """A request with these fields; what is None is not said."""
    return st.fixed_dictionaries(fields).map(
        lambda one: {key: value for key, value in one.items() if value is not None}
    )


def metric() -> "st.SearchStrategy[dict[str, Any]]":
    return said(key=KEYS, value=VALUES, timestamp=TIMES, step=STEPS)


def good_metric() -> "st.SearchStrategy[dict[str, Any]]":
    return said(
        key=st.sampled_from(["loss", "acc"]),
        value=st.sampled_from([0.5, -1, "NaN", "Infinity", 3]),
        timestamp=st.sampled_from([1, 2]),
        step=st.sampled_from([0, 1, -2, 7]),
    )


def pair_of(value: "st.SearchStrategy[Any]" = TEXTS) -> "st.SearchStrategy[dict[str, Any]]":
    return said(key=KEYS, value=value)


def good_pair() -> "st.SearchStrategy[dict[str, Any]]":
    return said(key=st.sampled_from(["rank", "lr"]), value=st.sampled_from(["1", "2", ""]))


def calls(run: "st.SearchStrategy[Any]", model: "st.SearchStrategy[Any]", name: "st.SearchStrategy[Any]") -> Any:
    """One call: (method, path, what is said)."""
    experiment = st.sampled_from([Name("experiment", 0), Name("experiment", 1), "99999", "x", "", None])
    second = st.sampled_from([Name("experiment", 1), Name("experiment", 1), "99999", "x", "", None])
    mine = st.just(Name("experiment", 0))
    post = {
        "runs/log-metric": metric().flatmap(
            lambda one: said(run_id=run, **{key: st.just(value) for key, value in one.items()})
        ),
        "runs/log-parameter": said(run_id=run, key=KEYS, value=TEXTS),
        "runs/set-tag": said(run_id=run, key=KEYS, value=TEXTS),
        "runs/delete-tag": said(run_id=run, key=st.sampled_from(["kind", "rank", "none", "", None])),
        "runs/create": said(
            experiment_id=experiment,
            run_name=st.sampled_from(["made", "other"]),
            user_id=st.sampled_from(["ann", "", None]),
            start_time=st.sampled_from([1, "2", 0]),
            tags=st.lists(
                said(
                    key=st.sampled_from(["mlflow.runName", "mlflow.user", "a/b", "bad$", "a//b", "", "../x", "ü"]),
                    value=st.sampled_from(["made", "x", ""]),
                ),
                max_size=3,
            ),
        ),
        "logged-models": said(
            experiment_id=experiment,
            name=st.sampled_from(["net", "a b", "ünï", "a/b", "a:b", "a.b", "a%", "a'b", 'a"b', " "]),
            model_type=st.sampled_from(["forest", "", None]),
            source_run_id=st.sampled_from([Name("run", 0), None, ""]),
            params=st.lists(good_pair(), max_size=2),
            tags=st.lists(good_pair(), max_size=2),
        ),
        "logged-models/{model}/params": said(model_id=model, params=st.lists(good_pair(), max_size=2)),
        "logged-models/search": said(
            experiment_ids=st.lists(mine, min_size=1, max_size=1),
            max_results=st.sampled_from([None, 1, 2, 100]),
            order_by=st.just([{"field_name": "name"}, {"field_name": "model_type"}, {"field_name": "status"}]),
            filter=st.sampled_from([None, "name = 'net'", "params.rank = '1'", "tags.lr != '1'"]),
        ),
        "runs/log-batch": said(
            run_id=run,
            metrics=st.lists(st.one_of(good_metric(), good_metric(), metric()), max_size=3),
            params=st.lists(st.one_of(good_pair(), good_pair(), pair_of(WORDS)), max_size=2),
            tags=st.lists(st.one_of(good_pair(), pair_of(WORDS)), max_size=2),
        ),
        "runs/update": said(
            run_id=run,
            status=STATUSES,
            end_time=st.sampled_from([5, None, "6"]),
            run_name=st.sampled_from(["new", "", None]),
        ),
        "runs/delete": said(run_id=run),
        "runs/restore": said(run_id=run),
        "runs/search": said(experiment_ids=st.lists(mine, max_size=1), max_results=LIMITS, run_view_type=VIEWS),
        "runs/log-inputs": said(
            run_id=run,
            datasets=st.lists(
                said(
                    tags=st.just([{"key": "mlflow.data.context", "value": "train"}]),
                    dataset=said(
                        name=st.sampled_from(["iris", "wine"]),
                        digest=st.just("d1"),
                        source_type=st.just("local"),
                        source=st.just("x"),
                    ),
                ),
                max_size=2,
            ),
        ),
        "experiments/create": said(name=st.sampled_from(["", None, 5, "Default"])),
        "experiments/delete": said(experiment_id=second),
        "experiments/restore": said(experiment_id=second),
        "experiments/delete-experiment-tag": said(experiment_id=experiment, key=KEYS),
        "experiments/update": said(experiment_id=experiment, new_name=st.sampled_from(["", None])),
        "experiments/set-experiment-tag": said(experiment_id=experiment, key=KEYS, value=TEXTS),
        "experiments/search": said(max_results=st.sampled_from([None, 0, -1, "x", 50_001]), view_type=VIEWS),
        "registered-models/create": said(name=name, description=st.sampled_from([None, "text"])),
        "registered-models/rename": said(name=name, new_name=st.one_of(name, st.just("a/b"))),
        "registered-models/get-latest-versions": said(
            name=name, stages=st.lists(STAGES.filter(lambda one: one is not None), max_size=1)
        ),
        "registered-models/set-tag": said(name=name, key=KEYS, value=TEXTS),
        "registered-models/alias": said(name=name, alias=ALIASES, version=VERSIONS),
        "model-versions/create": said(
            name=name,
            source=st.one_of(SOURCES, name.map(lambda one: f"models:/{one}/1")),
            run_id=st.sampled_from([Name("run", 0), Name("run", 0), None]),
            model_id=st.sampled_from([None, None, Name("model", 0)]),
        ),
        "model-versions/transition-stage": said(
            name=name, version=VERSIONS, stage=STAGES, archive_existing_versions=st.sampled_from([None, False, True])
        ),
        "model-versions/set-tag": said(name=name, version=VERSIONS, key=KEYS, value=TEXTS),
    }
    get = {
        "runs/get": said(run_id=run),
        "metrics/get-history": said(
            run_id=run, metric_key=st.sampled_from(["loss", "acc", "none", ""]), max_results=LIMITS
        ),
        "experiments/get": said(experiment_id=experiment),
        "experiments/get-by-name": said(experiment_name=st.sampled_from(["Default", "none", "", None])),
        "registered-models/get": said(name=name),
        "registered-models/alias": said(name=name, alias=ALIASES),
        "registered-models/search": said(max_results=st.sampled_from([1001, -1, "x"])),
        "model-versions/get": said(name=name, version=VERSIONS),
        "model-versions/get-download-uri": said(name=name, version=VERSIONS),
        "model-versions/search": said(
            filter=name.map(lambda one: f"name = '{one}'"), order_by=st.just(["version_number"])
        ),
        "logged-models/{model}": said(model_id=model, allow_deleted=st.sampled_from([None, "true", "false"])),
    }
    delete = {
        "registered-models/delete-tag": said(name=name, key=KEYS),
        "registered-models/alias": said(name=name, alias=ALIASES),
        "logged-models/{model}": said(model_id=model),
        "logged-models/{model}/tags/{key}": said(model_id=model, tag_key=st.sampled_from(["rank", "lr", "none"])),
        "model-versions/delete": said(name=name, version=VERSIONS),
        "model-versions/delete-tag": said(name=name, version=VERSIONS, key=KEYS),
    }
    patch = {
        "logged-models/{model}": said(model_id=model, status=MODEL_STATUSES),
        "logged-models/{model}/tags": said(model_id=model, tags=st.lists(good_pair(), max_size=2)),
        "registered-models/update": said(name=name, description=TEXTS),
        "model-versions/update": said(name=name, version=VERSIONS, description=TEXTS),
    }
    every = [
        st.tuples(st.just(method), st.just(path), fields)
        for method, group in (("POST", post), ("GET", get), ("DELETE", delete), ("PATCH", patch))
        for path, fields in group.items()
    ]
    return st.one_of(every)


def without_model(answer: Any) -> Any:
    version = answer[1].get("model_version", {})
    return answer[0], {"model_version": {key: value for key, value in version.items() if key != "model_id"}}


TOLERANT: Final = (
    "registered-models/search",
    "experiments/create",
    "runs/search",
    "experiments/search",
    "metrics/get-history",
    "registered-models/alias",
    "registered-models/delete-tag",
)
ALLOWED: Final[dict[str, Callable[[str, Any, Any, Any], bool]]] = {
    "a user's error is 400 or 404, not 500, so that no client repeats it for minutes": (
        lambda path, fields, stock, ours: stock[0] == 500 and ours[0] in (400, 404)
    ),
    "a request that is wrong in two ways, or names what cannot exist: either may be said first": (
        lambda path, fields, stock, ours: {stock[0], ours[0]} == {400, 404}
    ),
    "what stock takes without a meaning is refused: pages that are no numbers, names that nothing can have": (
        lambda path, fields, stock, ours: path in TOLERANT and (stock[0], ours[0]) == (200, 400)
    ),
    "one word for one thing: INVALID_PARAMETER_VALUE": (
        lambda path, fields, stock, ours: ours[0] == 400 and stock == (400, {"error_code": "BAD_REQUEST"})
    ),
    "a mistake is told: half a step, a blank name, a status that is none": (
        lambda path, fields, stock, ours: (
            (stock[0], ours[0]) == (200, 400)
            and (fields.get("step") == 1.5 or fields.get("name") == " " or fields.get("status") == "BOGUS")
        )
    ),
    "what is deleted takes no writes": (
        lambda path, fields, stock, ours: path.startswith("logged-models/") and (stock[0], ours[0]) == (200, 404)
    ),
    "a version says which logged model it is, which stock's store forgets": (
        lambda path, fields, stock, ours: path == "model-versions/create" and stock == without_model(ours)
    ),
}
"""Differences that remain, by their reasons; docs/mlflow-compatibility.md has them too."""


CREATES: Final = {"runs/create": "run", "logged-models": "model"}


def allowed(path: str, fields: Any, stock: Any, ours: Any) -> bool:
    for reason, fits in ALLOWED.items():
        if fits(path, fields, stock, ours):
            _needed.add(reason)
            return True
    return False


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def check_example(pair: Pair, data: st.DataObject) -> None:
    number = next(_examples)
    for side in (pair.stock, pair.ours):
        side.ids.clear()
    registered = f"model-{number}"
    for experiment in range(2):
        pair.must("POST", "experiments/create", Name("experiment", experiment), name=f"example-{number}-{experiment}")
    for run in range(2):
        made = {"run_name": f"run-{run}", "start_time": run, "user_id": "ann"}
        pair.must("POST", "runs/create", Name("run", run), experiment_id=Name("experiment", 0), **made)
        model = {"name": f"made-{run}", "source_run_id": Name("run", run)}
        pair.must("POST", "logged-models", Name("model", run), experiment_id=Name("experiment", 0), **model)
    pair.must("POST", "registered-models/create", name=registered)
    runs = st.sampled_from([Name("run", 0), Name("run", 0), Name("run", 1), "0" * 32, "bogus", "", None])
    models = st.sampled_from([Name("model", 0), Name("model", 0), Name("model", 1), "m-" + "0" * 32, "bogus"])
    names = st.sampled_from([registered, registered, registered, "none", "", "a/b", None])
    made = itertools.count(10)
    for method, path, fields in data.draw(st.lists(calls(runs, models, names), min_size=CALLS, max_size=CALLS)):
        where = path.format(model=fields.get("model_id", ""), key=fields.get("tag_key", ""))
        _asked.append(f"{method} {path}")
        creates = CREATES.get(path)
        stock, ours = pair.ask(method, where, Name(creates, next(made)) if creates else None, **fields)
        if stock != ours and not allowed(path, fields, stock, ours):
            _differ.append(f"{method} {path} {fields}\n  stock: {stock}\n  ours:  {ours}")


EXPERIMENT: Final = Name("experiment", 0)
LIVES: Final = (
    ("POST", "experiments/set-experiment-tag", {"experiment_id": EXPERIMENT, "key": "a", "value": "b"}),
    ("POST", "experiments/delete", {"experiment_id": EXPERIMENT}),
    ("POST", "experiments/delete", {"experiment_id": EXPERIMENT}),
    ("GET", "experiments/get", {"experiment_id": EXPERIMENT}),
    ("GET", "runs/get", {"run_id": Name("run", 0)}),
    ("POST", "experiments/set-experiment-tag", {"experiment_id": EXPERIMENT, "key": "a", "value": "c"}),
    ("POST", "experiments/update", {"experiment_id": EXPERIMENT, "new_name": "another"}),
    ("POST", "runs/create", {"experiment_id": EXPERIMENT}),
    ("POST", "logged-models", {"experiment_id": EXPERIMENT, "name": "n"}),
    ("POST", "runs/set-tag", {"run_id": Name("run", 0), "key": "a", "value": "b"}),
    ("POST", "experiments/restore", {"experiment_id": EXPERIMENT}),
    ("POST", "experiments/restore", {"experiment_id": EXPERIMENT}),
    ("GET", "runs/get", {"run_id": Name("run", 0)}),
    ("POST", "experiments/delete-experiment-tag", {"experiment_id": EXPERIMENT, "key": "a"}),
    ("POST", "experiments/delete-experiment-tag", {"experiment_id": EXPERIMENT, "key": "a"}),
    ("POST", "runs/set-tag", {"run_id": Name("run", 0), "key": "a", "value": "b"}),
    ("POST", "runs/delete-tag", {"run_id": Name("run", 0), "key": "a"}),
    ("POST", "runs/delete-tag", {"run_id": Name("run", 0), "key": "a"}),
    ("POST", "logged-models/<model 0>/params", {"params": [{"key": "a", "value": "1"}]}),
    ("POST", "logged-models/<model 0>/params", {"params": []}),
    ("PATCH", "logged-models/<model 0>/tags", {"tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}),
    ("DELETE", "logged-models/<model 0>/tags/b", {}),
    ("GET", "logged-models/<model 0>", {}),
    ("DELETE", "logged-models/<model 0>/tags/a", {}),
    ("PATCH", "logged-models/<model 0>", {"status": "LOGGED_MODEL_READY"}),
    ("PATCH", "logged-models/<model 0>", {"status": 3}),
    ("POST", "model-versions/create", {"name": "lives", "source": "models:/<model 0>", "model_id": Name("model", 0)}),
    ("POST", "registered-models/alias", {"name": "lives", "alias": "best", "version": "1"}),
    ("POST", "model-versions/create", {"name": "lives", "source": "models:/lives@best"}),
    ("POST", "model-versions/create", {"name": "lives", "source": "models:/lives/None", "run_id": Name("run", 0)}),
    ("POST", "model-versions/create", {"name": "lives", "source": "runs:/<run 0>/m", "run_id": Name("run", 0)}),
    ("POST", "registered-models/rename", {"name": "lives", "new_name": "lives"}),
    ("GET", "registered-models/get", {"name": "lives"}),
    ("DELETE", "logged-models/<model 0>", {}),
    ("DELETE", "logged-models/<model 0>", {}),
    ("GET", "logged-models/<model 0>", {}),
    ("PATCH", "logged-models/<model 0>/tags", {"tags": [{"key": "a", "value": "1"}]}),
    ("PATCH", "logged-models/<model 0>", {"status": 2}),
)
"""What is made, changed, deleted, and asked for once more."""


def test_what_is_deleted_and_restored_has_the_same_lives(pair: Pair) -> None:
    for side in (pair.stock, pair.ours):
        side.ids.clear()
    pair.must("POST", "experiments/create", EXPERIMENT, name="lives")
    run = {"start_time": 1, "run_name": "lives"}
    pair.must("POST", "runs/create", Name("run", 0), experiment_id=EXPERIMENT, **run)
    said = {"name": "lives", "source_run_id": Name("run", 0), "params": [{"key": "p", "value": "1"}]}
    pair.must("POST", "logged-models", Name("model", 0), experiment_id=EXPERIMENT, **said)
    pair.must("POST", "registered-models/create", name="lives")
    differ = []
    for method, path, fields in LIVES:
        where = fields | ({"model_id": Name("model", 0)} if path.startswith("logged-models/") else {})
        stock, ours = pair.ask(method, path, **where)
        if stock != ours and not allowed(path, fields, stock, ours):
            differ.append(f"{method} {path} {fields}\n  stock: {stock}\n  ours:  {ours}")
    assert not differ, "\n".join(differ)


def test_generated_calls_have_the_same_answers(pair: Pair) -> None:
    check_example(pair)
    assert not _differ, "\n".join(_differ)
    assert _needed == ALLOWED.keys(), "an allowance that nothing needs"
    assert len(_asked) >= WANTED
    # Nearly every call is drawn at least once.
    assert len(set(_asked)) >= 35
