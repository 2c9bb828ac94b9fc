import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.importing.keys import key_of
from stepstream_ingest.keys import check_key
from stepstream_schema import limits

NAMES = ["loss (x)", "/a//b/", "../../a", "..", "", "ä/ö:1", "a\0b", "x" * 400, "a/../b", "%", "..a", "../..a", "."]


@pytest.mark.parametrize("name", [*NAMES, "x" * (limits.MAX_KEY_CHARS - 2) + "/.a", "/" + "x" * 249 + "//y"])
def test_any_name_has_a_key(name: str) -> None:
    assert check_key(key_of(name), "metric")


@given(st.text(alphabet="ab./ -:_%ä\0") | st.text())
def test_any_text_has_a_key_and_a_key_keeps_its_name(name: str) -> None:
    key = key_of(name)
    assert check_key(key, "metric")
    assert key_of(key) == key
