"""Experiments that fit a filter: from clauses to one parameterised query. Pure.

The text of the query is put together from the pieces below; whatever came from outside is a parameter.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from stepstream_ingest.filters import Comparison, Order, bad, text_test
from stepstream_ingest.tracking.run_search import STAGES, Query, Stage

TIMES: Final = {"creation_time": "r.created_at_ms", "last_update_time": "r.updated_at_ms"}
COLUMNS: Final = {"name": 'r.name COLLATE "C"', "experiment_id": "r.experiment_id"} | TIMES
TEXT_OPERATORS: Final = ("=", "!=", "LIKE", "ILIKE")
NUMBER_OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=")
ID_OPERATORS: Final = ("=", "!=", "IN", "NOT IN")


def compile_search(
    filters: Sequence[Comparison], orders: Sequence[Order], *, stage: Stage, limit: int, offset: int
) -> Query:
    """The ids of the experiments of a page, in order. Raises ApiError."""
    arguments: list[Any] = []

    def parameter(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    conditions = [_condition(one, parameter) for one in filters]
    keys = [_order(one) for one in orders]
    if len({one.key for one in orders}) < len(orders):
        raise bad("`order_by` contains duplicate fields")
    keys += ["r.experiment_id DESC"] if orders else ["r.created_at_ms DESC", "r.experiment_id ASC"]
    sql = (
        f"SELECT r.experiment_id FROM experiments AS r WHERE true{STAGES[stage]}"
        + "".join(f" AND {condition}" for condition in conditions)
        + f" ORDER BY {', '.join(keys)} LIMIT {parameter(limit)} OFFSET {parameter(offset)}"
    )
    return Query(sql, tuple(arguments))


def _condition(one: Comparison, parameter: Callable[[Any], str]) -> str:
    if one.entity in ("tag", "tags"):
        rows = "experiment_tags AS x WHERE x.experiment_id = r.experiment_id"
        key = f"x.key = {parameter(one.key)}"
        if one.operator in ("IS NULL", "IS NOT NULL"):
            return f"{'NOT ' if one.operator == 'IS NULL' else ''}EXISTS (SELECT FROM {rows} AND {key})"
        _check(one, TEXT_OPERATORS, number=False)
        return f"EXISTS (SELECT FROM {rows} AND {key} AND {text_test('x.value', one, parameter)})"
    if one.entity not in ("", "attribute", "attributes"):
        raise bad(f"Invalid entity type '{one.entity[:60]}'. Valid entity types are attribute and tag")
    if one.key == "name":
        _check(one, TEXT_OPERATORS, number=False)
        return text_test("r.name", one, parameter)
    if one.key == "experiment_id":
        _check(one, ID_OPERATORS, number=False)
        return text_test("r.experiment_id::text", one, parameter)
    if one.key in TIMES:
        _check(one, NUMBER_OPERATORS, number=True)
        return f"{TIMES[one.key]} {'<>' if one.operator == '!=' else one.operator} {parameter(one.value)}::bigint"
    raise bad(f"Invalid attribute key '{one.key[:60]}' specified. Valid keys are {', '.join(COLUMNS)}")


def _check(one: Comparison, allowed: Sequence[str], *, number: bool) -> None:
    if one.operator not in allowed:
        raise bad(f"{one.key} is compared by {', '.join(allowed)}, not by {one.operator}")
    if number and not isinstance(one.value, int):
        raise bad(f"{one.key} is compared with a whole number")
    if not number and one.is_number:
        raise bad(f"{one.key} is compared with a quoted value")


def _order(one: Order) -> str:
    if one.key not in COLUMNS or one.entity not in ("", "attribute", "attributes"):
        raise bad(f"Invalid order_by key '{one.key[:60]}'; experiments are ordered by {', '.join(COLUMNS)}")
    return f"{COLUMNS[one.key]} {'ASC' if one.ascending else 'DESC'}"
