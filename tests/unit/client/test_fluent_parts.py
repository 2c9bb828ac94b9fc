"""What MLflow's names rest on: open runs, datasets, contents, the code's version."""

import json
import os
import threading
from dataclasses import MISSING, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream import active, code_version, data, entities, inputs
from stepstream.artifacts import content, fetching
from stepstream.buffer import Note
from stepstream.errors import ArtifactError, BadValue, ConfigurationError
from stepstream.framer import Framer
from stepstream_schema import frame as wire
from stepstream_schema import limits
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Dataset, Start


class Handle:
    """As much of a run as `active` looks at."""

    def __init__(self, run_id: str = "") -> None:
        self.run_id = run_id
        self.flushed = 0

    def flush(self, timeout: float) -> bool:
        self.flushed += 1
        return self.run_id != "stuck"


@pytest.fixture(autouse=True)
def no_open_runs(monkeypatch):
    monkeypatch.setattr(active, "_open", [])
    monkeypatch.setattr(active, "_last", None)


def in_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_the_newest_open_run_is_the_current_one_until_it_ends():
    outer, inner = Handle("a"), Handle("b")
    active.opened(outer)
    active.opened(inner)
    assert active.current() is inner
    assert active.by_id("a") is outer
    active.closed(inner)
    assert active.current() is outer
    active.closed(outer)
    assert (active.current(), active.last(), active.by_id("a")) == (None, inner, None)


def test_a_thread_has_runs_of_its_own_and_else_those_of_the_main_thread():
    outer, own = Handle(), Handle()
    active.opened(outer)
    assert in_thread(active.current) is outer

    def begin():
        active.opened(own)
        return active.current()

    assert in_thread(begin) is own
    assert active.current() is outer


def test_a_thread_does_not_go_on_with_the_run_of_one_that_has_ended():
    begun = [Handle(), Handle(), Handle()]

    def begin(run):
        before = active.current()
        active.opened(run)
        return before, active.current()

    # The system gives each of these threads the number of the one before.
    assert [in_thread(lambda run=run: begin(run)) for run in begun] == [(None, run) for run in begun]
    assert active.current() is None


def test_a_run_that_ends_in_another_thread_is_gone_everywhere():
    run = Handle()
    active.opened(run)
    in_thread(lambda: active.closed(run))
    assert active.current() is None


def test_a_child_that_is_forked_by_another_thread_goes_on_with_the_open_run():
    run = Handle("a")
    active.opened(run)

    def fork() -> int:
        child = os.fork()
        if child == 0:
            os._exit(0 if active.current() is run else 1)
        return os.waitpid(child, 0)[1]

    assert in_thread(fork) == 0


def test_a_run_that_is_joined_by_its_id_is_no_threads_own_nor_a_childs():
    kept, sent = Handle("kept"), Handle("sent")
    active.joined(kept, is_current=False)
    assert (active.current(), active.by_id("kept")) == (None, kept)
    active._forked()
    assert active.current() is None
    active.joined(sent, is_current=True)
    assert active.current() is sent


def test_a_flush_asks_every_run_and_says_whether_all_are_durable():
    runs = [Handle("stuck"), Handle("a")]
    for run in runs:
        active.opened(run)
    assert active.flush() is False
    assert [run.flushed for run in runs] == [1, 1]
    active.closed(runs[0])
    assert active.flush() is True


names = st.text(min_size=1, max_size=600)


@given(names, st.text(max_size=60), st.dictionaries(st.text(max_size=300), st.text(max_size=600), max_size=3))
def test_whatever_a_dataset_says_is_a_record_that_can_be_sent(name, digest, tags):
    note = inputs.note({"name": name, "digest": digest, "schema": {"a": 1}}, "train", tags, 5)
    framer = Framer(
        run_id="ab" * 16, writer=7, rank=None, attempt=Attempt(), start=Start(experiment="e", name="n", time_ms=1)
    )
    (sealed,) = framer.seal([], [note])
    found = wire.decode(sealed.data).records[1]
    assert isinstance(found, Dataset)
    assert len(found.name) == min(len(name), limits.MAX_NAME_CHARS)
    assert json.loads(found.schema) == {"a": 1}
    assert dict(found.tags)["mlflow.data.context"] in ("train", tags.get("mlflow.data.context", "train")[:500])


def test_a_dataset_stands_beside_params_and_tags_that_were_said_with_it():
    framer = Framer(
        run_id="ab" * 16, writer=7, rank=None, attempt=Attempt(), start=Start(experiment="e", name="n", time_ms=1)
    )
    notes = [Note("param", "a", "1", 1), inputs.note({"name": "d"}, None, {}, 2), Note("tag", "b", None, 3)]
    kinds = [type(record).__name__ for one in framer.seal([], notes) for record in wire.decode(one.data).records]
    assert sorted(kinds) == ["Dataset", "Params", "Start", "Tags"]


def test_a_dataset_without_a_name_is_no_dataset():
    with pytest.raises(BadValue, match="name"):
        inputs.note({"digest": "d"}, None, {}, 1)


def test_the_digest_of_an_array_is_that_of_its_content():
    one, same, other = (data.from_numpy(array) for array in (np.zeros(4), np.zeros(4), np.ones(4)))
    assert one.digest == same.digest != other.digest
    assert one.digest != data.from_numpy(np.zeros(4), targets=np.zeros(4)).digest
    assert len(one.digest) <= limits.MAX_DATASET_DIGEST_CHARS


def test_what_runs_is_known_once_and_never_fails(monkeypatch):
    said = code_version.tags()
    assert said["mlflow.source.type"] == "LOCAL"
    assert said is code_version.tags()
    monkeypatch.setenv("PATH", "")
    assert code_version.tags.__wrapped__().keys() >= {"mlflow.source.name"}
    assert "mlflow.source.git.commit" not in code_version.tags.__wrapped__()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://who:secret@host/r.git", "https://host/r.git"),
        ("https://token@host/r.git", "https://host/r.git"),
        ("https://host/r@v.git", "https://host/r@v.git"),
        ("git@host:r.git", "git@host:r.git"),
        ("", ""),
    ],
)
def test_a_password_in_the_address_of_the_repository_is_left_out(url, shown):
    assert code_version.without_password(url) == shown


def test_dictionaries_become_json_with_numpys_numbers():
    said = content.of_dict({"a": np.float32(1.5), "b": np.arange(2)}, "x.json")
    assert json.loads(said)["a"] == 1.5
    assert json.loads(said)["b"] == [0, 1]
    with pytest.raises(ArtifactError, match=r"x\.json"):
        content.of_dict({(1, 2): 3}, "x.json")


def test_what_is_no_figure_and_no_image_is_said():
    with pytest.raises(ArtifactError, match="no figure"):
        content.of_figure(object(), "x.png")
    with pytest.raises(ArtifactError, match="shape"):
        content._pixels(np.zeros((2, 2, 7)), "x.png")
    assert content._pixels(np.array([[0.0, 1.0, 2.0]]), "x.png").tolist() == [[0, 255, 255]]
    assert content._pixels(np.zeros((2, 3, 1)), "x.png").shape == (2, 3)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        (f"runs:/{'a' * 32}/model/x.txt", ("a" * 32, "model/x.txt")),
        (f"runs:/{'a' * 32}", ("a" * 32, "")),
        (f"mlflow-artifacts:/7/{'a' * 32}/artifacts/m", ("a" * 32, "m")),
    ],
)
def test_an_artifacts_uri_leads_to_run_and_path(uri, place):
    assert fetching._place(uri, None, None) == place


def test_an_artifact_that_is_not_named_is_refused():
    for asked in ((None, None, "x"), ("s3://bucket/x", None, None), ("runs:/x", "a", None)):
        with pytest.raises(ConfigurationError):
            fetching._place(*asked)


def test_entities_read_as_mlflows_do():
    metric = entities.Metric("loss", 0.5, 10)
    of_no_model = dict.fromkeys(("model_id", "dataset_name", "dataset_digest", "run_id"))
    assert dict(metric) == {"key": "loss", "value": 0.5, "timestamp": 10, "step": 0} | of_no_model
    assert metric.to_dictionary() == dict(metric)
    assert entities.RunStatus.to_string(entities.RunStatus.FAILED) == "FAILED"
    assert entities.RunStatus.from_string("KILLED") == 5
    assert not entities.RunStatus.is_terminated(entities.RunStatus.RUNNING)
    assert entities.PagedList([1], "next").token == "next"


def test_entities_that_are_equal_are_one_in_a_set():
    dataset = entities.Dataset("d", "1", "local", "{}")
    given = {
        entities.Experiment: {"tags": {"a": "b"}},
        entities.RunData: {"metrics": {"a": 1.0}, "params": {}, "tags": {"b": "c"}},
        entities.RunInputs: {"dataset_inputs": [entities.DatasetInput(dataset, [entities.InputTag("a", "b")])]},
        entities.RunOutputs: {"model_outputs": [entities.LoggedModelOutput("m")]},
        entities.RunInfo: {},
        entities.LoggedModel: {"params": {}, "tags": {"a": "b"}, "metrics": [entities.Metric("a", 1.0, 1)]},
        entities.ModelVersion: {"tags": {"a": "b"}, "aliases": ["best"]},
    }

    def made(kind, **more):
        named = {field.name: "x" for field in fields(kind) if field.default is field.default_factory is MISSING}
        return kind(**named | given.get(kind, {}) | more)

    parts = ("info", "data", "inputs", "outputs")
    kinds = (entities.RunInfo, entities.RunData, entities.RunInputs, entities.RunOutputs)
    for kind in given:
        assert len({made(kind), made(kind)}) == 1
    assert len({entities.Run(**{part: made(of) for part, of in zip(parts, kinds, strict=True)}) for _ in range(2)}) == 1
    versions = [made(entities.ModelVersion)]
    model = made(entities.RegisteredModel, latest_versions=versions, tags={}, aliases={"best": "1"})
    assert {model: 1}[made(entities.RegisteredModel, latest_versions=versions, tags={}, aliases={"best": "1"})] == 1
