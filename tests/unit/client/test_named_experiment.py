"""What set_experiment answers with asks the server for what an experiment has, and for nothing else."""

import copy
import os
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from stepstream import place, query
from stepstream.errors import ConfigurationError, QueryError
from stepstream.fluent import NamedExperiment, set_experiment

LOOKED_FOR = (
    "_ipython_display_",
    "_repr_mimebundle_",
    "_repr_html_",
    "_ipython_canary_method_should_not_exist_",
    "__deepcopy__",
    "shape",
    "nonsense",
)
"""By notebooks that show it, and by whatever looks what an object can do."""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        monkeypatch.setenv("STEPSTREAM_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setattr(query, "TIMEOUT_S", 0.1)
        yield listening


def was_asked(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_a_notebook_can_show_it_while_the_server_does_not_answer(silent: socket.socket) -> None:
    experiment = NamedExperiment("x")
    for name in LOOKED_FOR:
        with pytest.raises(AttributeError, match=name):
            getattr(experiment, name)
    assert repr(experiment) == "<NamedExperiment 'x'>"
    assert not was_asked(silent)
    with pytest.raises(QueryError):
        _ = experiment.experiment_id
    assert was_asked(silent)


def test_it_can_be_copied_and_sent_to_another_process(silent: socket.socket) -> None:
    experiment = NamedExperiment("x")
    for copied in (copy.copy(experiment), copy.deepcopy(experiment), pickle.loads(pickle.dumps(experiment))):
        assert (type(copied), copied.name) == (NamedExperiment, "x")
    assert not was_asked(silent)


@pytest.mark.parametrize("name", ["", 5, b"x", ["x"]])
def test_what_is_no_name_is_refused_before_it_takes_effect(name: Any) -> None:
    before = place.experiment(), os.environ.get("STEPSTREAM_EXPERIMENT_NAME")
    with pytest.raises(ConfigurationError, match="name"):
        set_experiment(name)
    assert (place.experiment(), os.environ.get("STEPSTREAM_EXPERIMENT_NAME")) == before
