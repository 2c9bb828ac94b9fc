import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream_ingest import pages
from stepstream_ingest.errors import ApiError
from stepstream_ingest.filters import BARE_OF_MODELS, Comparison, Order, parse, parse_order
from stepstream_ingest.tracking.model_search import compile_search


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("", []),
        ("metrics.loss < 0.5", [("metrics", "loss", "<", 0.5)]),
        ("name = 'x'", [("", "name", "=", "x")]),
        ('name = "it\'s"', [("", "name", "=", "it's")]),
        ("tags.`a b` LIKE '%x'", [("tags", "a b", "LIKE", "%x")]),
        ("tags.\"a.b\" ilike '%x'", [("tags", "a.b", "ILIKE", "%x")]),
        ("tags.k.with.dots = 'x'", [("tags", "k.with.dots", "=", "x")]),
        ("`metrics`.a >= -1e-3", [("metrics", "a", ">=", -0.001)]),
        ("attributes.run_id IN ('a', \"b\")", [("attributes", "run_id", "IN", ("a", "b"))]),
        ("run_id not in ('a',)", [("", "run_id", "NOT IN", ("a",))]),
        ("params.x IS NOT NULL and b is null", [("params", "x", "IS NOT NULL", None), ("", "b", "IS NULL", None)]),
        ("Run name = 'x'", [("", "Run name", "=", "x")]),
        ("AND a = 1 AND", [("", "a", "=", 1)]),
        ("a = 1 b = .5", [("", "a", "=", 1), ("", "b", "=", 0.5)]),
        ("android != 'x'", [("", "android", "!=", "x")]),
    ],
)  # fmt: skip
def test_filters_are_read(text, clauses):
    assert [(one.entity, one.key, one.operator, one.value) for one in parse(text)] == clauses


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("metrics.val/loss>-0.1", [("metrics", "val/loss", ">", -0.1, "-0.1")]),
        ("params.a-b = 0.10 AND tags.k-1='x'", [("params", "a-b", "=", 0.1, "0.10"), ("tags", "k-1", "=", "x", "")]),
        (f"params.a = {'9' * 5000}", [("params", "a", "=", math.inf, "9" * 5000)]),
        (f"params.a = {2**63} params.a = {-(2**63)}",
            [("params", "a", "=", float(2**63), str(2**63)), ("params", "a", "=", -(2**63), str(-(2**63)))]),
    ],
)  # fmt: skip
def test_searches_of_logged_models_take_more_characters_of_bare_keys_and_numbers_as_written(text, clauses):
    found = parse(text, BARE_OF_MODELS)
    assert [(one.entity, one.key, one.operator, one.value, one.written) for one in found] == clauses


NO_FILTERS = """
OR x = 1
a == 'x'
a <> 'x'
a = b
a = 'x' OR b = 'y'
(a = 'x')
NOT a = 'x'
a = 1; b = 2
a IN (1)
a IN ()
a IN 'x'
a = +1
a = 0x1
a = 'it''s'
0.5 > metrics.loss
a = nan
a = inf
a LIKE
a
=
metrics.a-b = 1
a = 'x
a IS 'x'
a NOT LIKE 'x'
-- x
a = `x`
'a' = 'b'
"""


@pytest.mark.parametrize("text", [" ", *NO_FILTERS.strip().splitlines()])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(ApiError) as refusal:
        parse(text)
    assert (refusal.value.status, refusal.value.code) == (400, "INVALID_PARAMETER_VALUE")


def test_a_list_may_name_a_hundred_thousand_runs():
    ids = tuple(f"{number:032x}" for number in range(100_000))
    listed = ", ".join(f"'{one}'" for one in ids)
    where, last = parse(f"run_id NOT IN ( {listed} , ) AND tags.a = ')'")
    assert where == Comparison("", "run_id", "NOT IN", ids)
    assert last.value == ")"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a IN ('{'x' * 4_000_000}')", "longer than 4000000 characters"),
        (" AND ".join(["a = ','"] * 20_000), "longer than 100000 characters, besides its texts and lists"),
        (" AND ".join(["a IN ('b','c')"] * 20_000), "longer than 100000 characters, besides its texts and lists"),
        (" AND ".join(["a = 'b'"] * 201), "more than 200 clauses"),
        ("a IN (" + ",".join(["''"] * 110_000) + ")", "more than 100500 texts"),
        # Each would else be read in as many ways as it has digits, squared: for minutes.
        (f"a = {'1' * 90_000}x", "Invalid clause"),
        (f"a = {'1' * 45_000}.{'1' * 45_000}e1x", "Invalid clause"),
        (f"a = .{'1' * 90_000}e{'1' * 9000}.", "Invalid clause"),
    ],
)
def test_what_would_take_long_to_read_is_refused(text, said):
    with pytest.raises(ApiError) as refusal:
        parse(text)
    assert said in refusal.value.message


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text):
    with contextlib.suppress(ApiError):
        assert all(one.key for one in parse(text))


@given(
    st.text(st.characters(exclude_characters="`\n"), min_size=1, max_size=30),
    st.text(st.characters(exclude_characters="'"), max_size=30),
)
def test_quoted_keys_and_values_come_through_as_they_are(key, value):
    (one,) = parse(f"tags.`{key}` = '{value}'")
    assert (one.key, one.value) == (key, value)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("metrics.loss DESC", Order("metrics", "loss", False)),
        ("params.größe\tDESC", Order("params", "größe", False)),
        ("\n  metrics.loss\n  desc\n", Order("metrics", "loss", False)),
        ("start_time", Order("", "start_time", True)),
        ("params.`a b` asc", Order("params", "a b", True)),
    ],
)
def test_orders_are_read(text, order):
    assert parse_order(text) == order


@pytest.mark.parametrize("text", ["", " ", "a, b", "a SIDEWAYS", "DESC x", "a = 1", "a' OR 1=1 --"])
def test_what_is_no_order_is_refused(text):
    with pytest.raises(ApiError):
        parse_order(text)


@given(st.text(max_size=20), st.sampled_from(["params", "tags", "attributes", ""]), st.text(max_size=20))
def test_nothing_from_outside_gets_into_the_text_of_a_query(key, entity, value):
    try:
        query = compile_search([1], [Comparison(entity, key, "=", value)], [], [], limit=1, offset=0)
    except ApiError:
        return
    plain = compile_search([1], [Comparison("tags", "k", "=", "v")], [], [], limit=1, offset=0)
    if entity in ("params", "tags"):
        assert query.sql.replace("_params", "_tags") == plain.sql
        assert value in query.arguments


def test_a_page_token_belongs_to_its_question():
    assert pages.offset(pages.token(50, ["a"]), ["a"]) == 50
    assert pages.offset("", ["a"]) == 0
    for text in (pages.token(50, ["b"]), "x", "eyJ9", pages.token(0, ["a"])):
        with pytest.raises(ApiError):
            pages.offset(text, ["a"])
