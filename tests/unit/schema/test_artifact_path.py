import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepstream_schema import artifact_path, limits


@pytest.mark.parametrize(
    "path", ["a", "model/MLmodel", "a b/ü.txt", ".hidden", "a..b", "x#y", "%2e%2e", "~", "a:b", "x" * 255]
)
def test_ordinary_paths_are_taken(path):
    assert artifact_path.problem(path) is None


LONG = ("y/" * 600 + "z", "\ud800", "é" * 128)


@pytest.mark.parametrize(
    "path",
    [
        *"/.",
        "",
        "/etc/passwd",
        "..",
        "a/..",
        "../a",
        "a/../../b",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x7f",
        "x" * 256,
        "d/" * 101 + "x",
        *LONG,
    ],
)
def test_what_could_climb_out_or_cannot_be_stored_is_refused(path):
    assert artifact_path.problem(path)


@given(st.text())
@example("a/b")
def test_what_is_taken_stays_below_any_directory(path):
    import posixpath

    if artifact_path.problem(path) is None:
        joined = posixpath.normpath(posixpath.join("/root", path))
        assert joined == "/root/" + path


def test_a_directory_holds_itself_and_what_lies_below():
    assert artifact_path.is_within("a/b", "a")
    assert artifact_path.is_within("a", "a")
    assert artifact_path.is_within("a", "")
    assert not artifact_path.is_within("ab", "a")


@given(st.one_of(st.none(), st.integers(0, limits.MAX_ARTIFACT_BYTES)))
def test_a_file_of_any_size_fits_the_parts_that_stores_take(size):
    part = limits.part_bytes(size)
    assert part >= 5 * 2**20
    assert part % 2**20 == 0
    assert size is None or -(-size // part) <= limits.MAX_PARTS


@pytest.mark.parametrize(
    ("size", "mebibytes"),
    [(None, 16), (0, 16), (128 * 2**20, 16), (256_000_000, 31), (2**30, 64), (600 * 2**30, 64), (700 * 2**30, 72)],
)
def test_parts_grow_with_the_file_but_not_far(size, mebibytes):
    assert limits.part_bytes(size) == mebibytes * 2**20


def test_a_path_lies_in_each_of_its_directories():
    assert artifact_path.directories("a/b/c") == ["a", "a/b"]
    assert artifact_path.directories("a") == []
    assert artifact_path.problem("d/" * 100 + "x") is None
