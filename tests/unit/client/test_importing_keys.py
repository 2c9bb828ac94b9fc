import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.importing.keys import MARK_CHARS, Keys, key_of
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


@given(st.lists(st.text(alphabet="ab()[]", max_size=3) | st.text(min_size=limits.MAX_KEY_CHARS - 1)))
def test_no_two_names_have_one_key_whatever_comes_later(names: list[str]) -> None:
    keys = Keys()
    said = [keys.of(name) for name in names]
    assert len(set(said)) == len(set(names))
    assert all(check_key(key, "metric") for key in said)
    assert [keys.of(name) for name in names] == said
    assert keys.marked.keys() == {name for name, key in zip(names, said, strict=True) if key != key_of(name)}


def test_a_name_that_looks_like_one_with_a_mark_has_a_key_of_its_own() -> None:
    first = Keys()
    first.of("a(")
    mark = first.of("a[")
    assert (mark[:3], len(mark)) == ("a_-", 3 + MARK_CHARS)
    keys = Keys()
    assert [keys.of(mark), keys.of("a("), len(keys.of("a["))] == [mark, "a_", len(mark) + 1]
