"""Bodies of log-batch: the short way and the long one read the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow import batches
from stepstream_schema import frame as wire
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Metrics

RUN = "0123456789abcdef" * 2
METRIC = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["loss", "val/acc", "gpu 0"]),
        "value": st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(-9, 9)
        | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
        "timestamp": st.integers(0, 2**53),
        "step": st.integers(-(2**63), 2**63 - 1),
    },
    optional={
        "run_id": st.just(RUN) | st.just("another") | st.just(""),
        "model_id": st.sampled_from(["", "m-" + RUN, "m-" + RUN[::-1]]),
        "dataset_name": st.just("train"),
        "dataset_digest": st.just("0a1b"),
    },
)
FLAW = st.sampled_from(
    [
        ("key", ""),
        ("key", "a//b"),
        ("key", "what?"),
        ("key", "k" * 251),
        ("key", 5),
        ("key", None),
        ("timestamp", -1),
        ("timestamp", 2**63),
        ("timestamp", "7"),
        ("step", -(2**63) - 1),
        ("step", 1.5),
        ("step", None),
        ("value", "much"),
        ("value", True),
        ("value", None),
        ("value", 10**400),
        ("run_id", None),
        ("model_id", "m-1"),
        ("model_id", None),
        ("unknown", 1),
    ]
)
PAIR = st.fixed_dictionaries({"key": st.sampled_from("abc"), "value": st.text(max_size=5)})
BATCH = st.fixed_dictionaries(
    {"run_id": st.just(RUN), "metrics": st.lists(METRIC, max_size=9)},
    optional={"params": st.lists(PAIR, max_size=2), "tags": st.lists(PAIR, max_size=2)},
)


def content(batch: batches.Batch) -> tuple:
    points = None if batch.points is None else wire.encode(a_frame(batch.points))
    return batch.run_id, points, list(batch.params), batch.tags, list(map(repr, batch.of_models))


def a_frame(record: Metrics) -> wire.Frame:
    return wire.Frame(run_id=RUN, writer=1, seq=1, rank=None, attempt=Attempt(), records=(record,))


def outcome(read, body: bytes) -> object:
    try:
        return content(read(body))
    except ApiError as error:
        return error.code, str(error)


@given(BATCH)
def test_what_a_client_writes_is_read_the_short_way_and_as_the_long_one_reads_it(batch):
    body = json.dumps(batch).encode()
    assert outcome(batches.read_plain, body) == outcome(batches.read_any, body)


@given(st.lists(METRIC, min_size=1, max_size=4), st.lists(PAIR, max_size=3), st.data())
def test_what_is_wrong_is_answered_the_same_whichever_way_is_taken_first(metrics, params, data):
    name, value = data.draw(FLAW)
    place = data.draw(st.integers(0, len(metrics) - 1))
    metrics[place] = metrics[place] | {name: value}
    body = json.dumps({"run_id": RUN, "metrics": metrics, "params": params}).encode()
    assert outcome(batches.read, body) == outcome(batches.read_any, body)


@pytest.mark.parametrize(("metrics", "params"), [(1001, 0), (1000, 1), (0, 101)])
def test_too_much_is_refused_on_the_short_way(metrics, params):
    points = [{"key": "a", "value": 1, "timestamp": 1}] * metrics
    pairs = [{"key": f"p{number}", "value": ""} for number in range(params)]
    body = json.dumps({"run_id": RUN, "metrics": points, "params": pairs}).encode()
    with pytest.raises(ApiError, match="can contain at most"):
        batches.read_plain(body)


def test_the_run_that_counts_is_the_batch_s():
    metric = {"key": "a", "value": 1, "timestamp": 1, "run_id": "f" * 32}
    assert batches.read_plain(json.dumps({"run_id": RUN, "metrics": [metric]}).encode()).run_id.hex == RUN


@pytest.mark.parametrize(
    "more",
    [{}, {"run_id": RUN}, {"run_id": RUN, "model_id": "m-" + RUN, "dataset_name": "d", "dataset_digest": "1"}],
    ids=["autologging and MLflow 2", "log_metrics of MLflow 3", "of a logged model"],
)
def test_bodies_of_the_clients_take_the_short_way(more):
    metrics = [{"key": f"m{n % 100}", "value": n / 7, "timestamp": 5 + n // 100, "step": n // 100} for n in range(1000)]
    batch = batches.read_plain(json.dumps({"run_id": RUN, "metrics": [one | more for one in metrics]}).encode())
    assert batch is not None
    assert batch.points.keys == tuple(f"m{number}" for number in range(100))
    assert batch.points.values.T.ravel().tolist() == [one["value"] for one in metrics]
    assert [(one.key, one.step, one.value) for one in batch.of_models] == [
        (one["key"], one["step"], one["value"]) for one in metrics if "model_id" in more
    ]


@pytest.mark.parametrize(
    "metric",
    [
        {"key": "loss", "value": "nan", "timestamp": 1, "step": 1},
        {"key": "loss", "value": "0.5", "timestamp": "1", "step": "1"},
    ],
)
def test_what_needs_a_closer_look_gets_it(metric):
    body = json.dumps({"run_id": RUN, "metrics": [metric]}).encode()
    assert batches.read_plain(body) is None
    assert batches.read(body).points.points == 1


def test_infinity_is_the_largest_number_as_in_mlflow():
    read = [
        batches.read(json.dumps({"run_id": RUN, "metrics": [{"key": "a", "value": value, "timestamp": 1}]}).encode())
        for value in ("Infinity", "-Infinity", 1.5)
    ]
    assert [one.points.values[0, 0] for one in read] == [1.7976931348623157e308, -1.7976931348623157e308, 1.5]


def test_nan_beside_infinity_stays_what_it_is():
    metrics = [{"key": key, "value": value, "timestamp": 1} for key, value in (("a", "NaN"), ("b", "Infinity"))]
    batch = batches.read_plain(json.dumps({"run_id": RUN, "metrics": metrics}).encode())
    assert list(map(repr, batch.points.values.ravel().tolist())) == ["nan", "1.7976931348623157e+308"]
