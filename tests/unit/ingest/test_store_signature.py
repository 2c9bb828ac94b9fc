from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest.artifacts.stores import signature
from stepstream_ingest.artifacts.stores.signature import BadSignature, Permit
from stepstream_schema import paths

SECRET = b"s" * 32
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
permits = st.builds(
    Permit,
    method=st.sampled_from(["GET", "PUT"]),
    key=text.map(lambda name: "objects/" + name),
    expires=st.integers(1, 2**40),
    token=text,
    part=st.integers(0, 10_000),
    size=st.integers(-1, 2**40),
    checksum=text,
    filename=text,
    type=text,
)


def parts(url):
    split = urlsplit(url)
    return unquote(split.path).removeprefix(paths.STORE + "/"), dict(parse_qsl(split.query, keep_blank_values=True))


@given(permits)
def test_what_was_signed_is_permitted_until_it_expires(permit):
    key, query = parts(signature.url(permit, SECRET))
    assert signature.check(permit.method, key, query, SECRET, permit.expires) == permit
    with pytest.raises(BadSignature, match="expired"):
        signature.check(permit.method, key, query, SECRET, permit.expires + 1)


@given(permits, permits)
def test_a_signature_fits_one_permit_alone(signed, wanted):
    if signed == wanted:
        return
    _, query = parts(signature.url(signed, SECRET))
    key, said = parts(signature.url(wanted, SECRET))
    with pytest.raises(BadSignature):
        signature.check(wanted.method, key, said | {"signature": query["signature"]}, SECRET, 0)


@given(permits, st.sampled_from(["size", "part", "expires"]))
def test_no_number_can_be_moved(permit, field):
    key, query = parts(signature.url(permit, SECRET))
    moved = replace(permit, **{field: getattr(permit, field) + 1})
    _, other = parts(signature.url(moved, b"x" * 32))
    with pytest.raises(BadSignature):
        signature.check(permit.method, key, other | {"signature": query["signature"]}, SECRET, 0)


@pytest.mark.parametrize("query", [{}, {"expires": "x", "signature": "y"}, {"expires": "9"}, {"signature": "ä"}])
def test_what_was_never_signed_is_refused(query):
    with pytest.raises(BadSignature):
        signature.check("GET", "objects/aa/" + "a" * 32, query, SECRET, 0)
