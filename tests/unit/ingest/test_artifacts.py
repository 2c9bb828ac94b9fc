import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.artifacts import plan
from stepstream_ingest.artifacts.parts import gaps
from stepstream_ingest.artifacts.stores import root
from stepstream_ingest.artifacts.stores.headers import attachment, safe_type
from stepstream_ingest.artifacts.stores.store import Part, object_id, object_key
from stepstream_ingest.trees import ELSEWHERE, place

RUN = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


@pytest.mark.parametrize(
    ("text", "kind", "bucket", "prefix"),
    [
        ("s3://b", "s3", "b", ""),
        ("s3://b/some/prefix/", "s3", "b", "some/prefix"),
        ("gs://b/p", "gs", "b", "p"),
        ("azure://c/p", "azure", "c", "p"),
        ("file:///data/a%20b", "file", "", "/data/a b"),
    ],
)
def test_a_root_names_one_place_in_one_store(text, kind, bucket, prefix):
    found = root.parse(text)
    assert (found.kind, found.bucket, found.prefix) == (kind, bucket, prefix)
    assert found.kind == "file" or found.own(found.key("objects/x")) == "objects/x"


@pytest.mark.parametrize("text", ["", "s3:///x", "/data", "http://x/y", "file://host/x", "s3://b?x=1", "ftp://x"])
def test_what_is_no_root_is_told_what_is(text):
    with pytest.raises(ValueError, match="s3://bucket"):
        root.parse(text)


def part(number, size):
    return Part(number=number, size=size, token=str(number))


@given(st.integers(1, 10_000), st.integers(1, 1000))
def test_parts_that_cover_a_file_have_no_gaps_and_each_missing_one_is_named(size, part_bytes):
    whole = [part(one.number, one.size) for one in plan.parts(size, part_bytes)]
    assert gaps(whole, size, part_bytes) is None
    for one in whole[:5]:
        rest = [other for other in whole if other is not one]
        assert gaps(rest, size, part_bytes)
        assert [missing.number for missing in plan.missing(size, part_bytes, {(p.number, p.size) for p in rest})] == [
            one.number
        ]
    assert gaps([*whole, part(len(whole) + 1, 1)], size, part_bytes)
    assert gaps([*whole[:-1], part(len(whole), whole[-1].size + 1)], size, part_bytes)


def test_parts_of_an_unknown_size_need_only_be_in_a_row():
    assert gaps([part(1, 5), part(2, 7)], None, 16) is None
    assert gaps([part(2, 7)], None, 16)
    assert gaps([], None, 16)


def test_a_part_that_is_missing_at_the_end_is_told_by_how_many_there_are():
    sent = [part(1, 16), part(2, 16)]
    assert gaps(sent, None, 16, 2) is None
    assert "part" in gaps(sent, None, 16, 3)
    assert gaps(sent, None, 16, 2, 2) is None
    assert gaps(sent, None, 16, 2, 1)
    assert gaps(sent, None, 16, 1)


@given(st.uuids())
def test_a_key_leads_back_to_its_object(found):
    assert object_id(object_key(found)) == found


@pytest.mark.parametrize("key", ["", "objects/aa/" + "b" * 32, "x/ab/" + "ab" * 16, "objects/ab/zz"])
def test_other_keys_are_none_of_ours(key):
    assert object_id(key) is None


@given(st.text(max_size=50))
def test_a_disposition_is_one_line_that_saves(name):
    said = attachment(name.encode("utf-8", "replace").decode())
    assert said.startswith("attachment; filename=")
    assert said.isascii()
    assert not {"\r", "\n"} & set(said)


@pytest.mark.parametrize(
    "kind", ["text/html", "image/svg+xml", "application/xhtml+xml", "TEXT/HTML; x", "text/javascript"]
)
def test_what_a_browser_would_run_is_handed_out_as_bytes(kind):
    assert safe_type(kind) == "application/octet-stream"


@pytest.mark.parametrize(
    ("proxied", "owner", "path"),
    [
        (f"0/{RUN}/artifacts/model/MLmodel", RUN, "model/MLmodel"),
        (f"0/{RUN}/artifacts", RUN, ""),
        (f"{RUN}/artifacts/a", RUN, "a"),
        (f"some/where/7/{RUN}/artifacts/x/artifacts/y", RUN, "x/artifacts/y"),
        (f"3/models/m-{RUN}/artifacts/MLmodel", RUN, "MLmodel"),
        (f"/{RUN}/artifacts/a", RUN, "a"),
        (f"0/{RUN}/artifacts/backup/0/{OTHER}/artifacts/model/x", RUN, f"backup/0/{OTHER}/artifacts/model/x"),
        (f"0/{RUN}/artifacts/models/m-{OTHER}/artifacts/x", RUN, f"models/m-{OTHER}/artifacts/x"),
        (f"3/models/m-{RUN}/artifacts/0/{OTHER}/artifacts/x", RUN, f"0/{OTHER}/artifacts/x"),
        (f"0/m-{RUN}/artifacts/x", ELSEWHERE.hex, f"0/m-{RUN}/artifacts/x"),
        ("free/file.txt", ELSEWHERE.hex, "free/file.txt"),
        (f"{RUN}/other", ELSEWHERE.hex, f"{RUN}/other"),
    ],
)
def test_a_proxied_path_leads_to_the_tree_of_its_run(proxied, owner, path):
    found = place(proxied)
    assert (found.owner.hex, found.path) == (owner, path)
