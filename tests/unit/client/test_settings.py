import base64
import copy
import pickle
import re
from pathlib import Path

import pytest

from stepstream import credentials
from stepstream.errors import ConfigurationError
from stepstream.settings import DEFAULT_TRACKING_URI, load


def test_without_anything_said_the_defaults_hold():
    settings = load({})
    assert settings.tracking_uri == DEFAULT_TRACKING_URI
    assert settings.experiment == "Default"
    assert settings.spool_interval_s == 0.5


def test_arguments_come_before_our_names_and_those_before_mlflows():
    environ = {
        "STEPSTREAM_TRACKING_URI": "http://ours:1",
        "MLFLOW_TRACKING_URI": "http://theirs:2",
        "MLFLOW_EXPERIMENT_NAME": "theirs",
    }
    assert load(environ, tracking_uri="https://given/").tracking_uri == "https://given"
    assert load(environ).tracking_uri == "http://ours:1"
    assert load({"MLFLOW_TRACKING_URI": "http://theirs:2"}).tracking_uri == "http://theirs:2"
    assert load(environ).experiment == "theirs"
    assert load(environ | {"STEPSTREAM_EXPERIMENT_NAME": "ours"}).experiment == "ours"


def test_a_token_is_taken_without_the_newline_of_its_file_and_only_as_a_header_may_hold_it():
    assert load({"STEPSTREAM_TOKEN": "abc\n"}).token == "abc"
    assert load({"MLFLOW_TRACKING_TOKEN": " a b "}).token == "a b"
    assert load({"STEPSTREAM_TOKEN": "\n"}).token is None
    for wrong in ("a\nb", "a\0", "caf\u00e9"):
        with pytest.raises(ConfigurationError, match="STEPSTREAM_TOKEN"):
            load({"STEPSTREAM_TOKEN": wrong})


@pytest.mark.parametrize("spelling", ["every call", "Every-Call", "every_call"])
def test_every_call_is_a_value_of_the_interval(spelling):
    assert load({"STEPSTREAM_SPOOL_INTERVAL": spelling}).spool_interval_s == 0


def test_all_problems_are_reported_together():
    environ = {
        "STEPSTREAM_TRACKING_URI": "sqlite:///mlflow.db",
        "STEPSTREAM_BUFFER_BYTES": "many",
        "STEPSTREAM_SPOOL_INTERVAL": "-1",
    }
    with pytest.raises(ConfigurationError) as caught:
        load(environ)
    assert all(name in str(caught.value) for name in environ)


def test_the_spool_lies_below_the_users_state_directory():
    assert load({"XDG_STATE_HOME": "/state"}).spool_dir == Path("/state/stepstream/spool")
    assert load({"STEPSTREAM_SPOOL_DIR": "/fast"}).spool_dir == Path("/fast")


@pytest.mark.parametrize("name", ["e\0", "caf\udce9"])
def test_an_experiment_that_no_frame_can_carry_is_refused_when_it_is_said(name):
    with pytest.raises(ConfigurationError, match="STEPSTREAM_EXPERIMENT_NAME must be valid Unicode"):
        load({"STEPSTREAM_EXPERIMENT_NAME": name})
    with pytest.raises(ConfigurationError, match="experiment must be valid Unicode"):
        load({}, experiment=name)


@pytest.mark.parametrize("wrong", ["http://[::1", "http://h:notaport", "http://h:99999", "http://", "h:80", "ftp://h"])
def test_an_address_that_nobody_can_reach_is_refused_when_it_is_said(wrong):
    with pytest.raises(ConfigurationError, match=r"STEPSTREAM_TRACKING_URI is .* a port that is a number"):
        load({"STEPSTREAM_TRACKING_URI": wrong})
    assert load({"STEPSTREAM_TRACKING_URI": "http://[::1]:80/a/"}).tracking_uri == "http://[::1]:80/a"


@pytest.mark.parametrize(
    "wrong", ["ftp://u:secret@h", "http://u:sec/ret@h", "http://u:sec#ret@h", "u:secret@h", "http://u:12/34@h"]
)
def test_no_problem_shows_a_password(wrong):
    with pytest.raises(ConfigurationError, match=r"\*\*\*@h.*percent-encoded") as caught:
        load({"STEPSTREAM_TRACKING_URI": wrong})
    assert not re.search("sec|ret@|12|34", str(caught.value).replace("http://127.0.0.1", ""))


def test_the_name_and_password_of_an_address_take_the_place_of_a_token():
    settings = load({"STEPSTREAM_TRACKING_URI": "http://bob:p%40ss%3Aword@h:80/base/"})
    assert settings.tracking_uri == "http://h:80/base"
    assert settings.token == "bob:p@ss:word"
    assert "word" not in repr(settings)
    said = "Basic " + base64.b64encode(b"bob:p@ss:word").decode()
    token = pickle.loads(pickle.dumps(copy.deepcopy(settings.token)))
    assert credentials.header(token, "http://h/elsewhere") == said
    for other in ("https://h", "http://h:81", "http://other", "http://[::1"):
        assert credentials.header(token, other) == ""
    assert load({"STEPSTREAM_TRACKING_URI": "http://bob:p@h", "STEPSTREAM_TOKEN": "t"}).token == "t"
    assert credentials.header("t", "http://anywhere") == "Bearer t"


def test_they_count_wherever_the_same_server_is_said_without_them():
    environ = {"STEPSTREAM_TRACKING_URI": "http://h", "MLFLOW_TRACKING_URI": "http://bob:p@h:80"}
    assert load(environ).token == load(environ, tracking_uri="http://h/").token == "bob:p"
    assert load(environ, tracking_uri="http://other").token is None
    assert load(environ, tracking_uri="http://eve:q@h").token == "eve:q"


def test_a_spool_that_no_home_or_directory_can_be_found_for_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigurationError, match=r"~nobody-is-called-so/x .* set STEPSTREAM_SPOOL_DIR"):
        load({"STEPSTREAM_SPOOL_DIR": "~nobody-is-called-so/x"})
    monkeypatch.delenv("HOME", raising=False)
    # As in a container that is run by a number without a name.
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 5)
    with pytest.raises(ConfigurationError, match="set STEPSTREAM_SPOOL_DIR to an absolute path"):
        load({})
    assert load({"XDG_STATE_HOME": "/state"}).spool_dir == Path("/state/stepstream/spool")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="the spool cannot be at here"):
        load({"STEPSTREAM_SPOOL_DIR": "here"})
