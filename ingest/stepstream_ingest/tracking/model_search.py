"""Logged models that fit a filter: from clauses to one parameterised query. Pure.

The text of the query is put together from the pieces below; whatever came from outside is a parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepstream_ingest.filters import Comparison, Order, bad, text_test

TEXTS: Final = {
    "name": "m.name",
    "model_id": "('m-' || replace(m.model_id::text, '-', ''))",
    "model_type": "m.model_type",
    "status": "m.status",
    "source_run_id": "replace(m.source_run_id::text, '-', '')",
}
NUMBERS: Final = {
    "creation_timestamp": "m.created_at_ms",
    "creation_time": "m.created_at_ms",
    "last_updated_timestamp": "m.updated_at_ms",
}
STATUSES: Final = {
    "PENDING": "LOGGED_MODEL_PENDING",
    "READY": "LOGGED_MODEL_READY",
    "FAILED": "LOGGED_MODEL_UPLOAD_FAILED",
}
TABLES: Final = {"params": "logged_model_params", "tags": "logged_model_tags"}
METRICS: Final = "logged_model_metrics AS x WHERE x.model_id = m.model_id"
LATEST: Final = "x.time_ms DESC, x.step DESC, x.run_id"
TEXT_OPERATORS: Final = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
NUMBER_OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class OnDataset:
    """Metrics that were measured on a dataset; without a digest, on any of that name."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """A key of the order, and of a metric on which dataset."""

    order: Order
    dataset: OnDataset | None


@dataclass(frozen=True, slots=True)
class Query:
    """A statement and its parameters."""

    sql: str
    arguments: tuple[Any, ...]


def compile_search(
    experiment_ids: Sequence[int],
    filters: Sequence[Comparison],
    orders: Sequence[ModelOrder],
    datasets: Sequence[OnDataset],
    *,
    limit: int,
    offset: int,
) -> Query:
    """The ids of the models of a page, in order. Raises ApiError."""
    arguments: list[Any] = [list(experiment_ids)]

    def parameter(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    on = " OR ".join(_on(one, parameter) for one in datasets)
    conditions = [_condition(one, on, parameter) for one in filters]
    if on and not any(one.entity == "metrics" for one in filters):
        conditions.append(f"EXISTS (SELECT FROM {METRICS} AND ({on}))")
    keys = [_order(one, parameter) for one in orders]
    sql = (
        "SELECT m.model_id FROM logged_models AS m "
        "WHERE m.experiment_id = ANY($1::bigint[]) AND m.lifecycle_stage = 'active'"
        + "".join(f" AND {condition}" for condition in conditions)
        + f" ORDER BY {', '.join([*keys, 'm.created_at_ms DESC', 'm.model_id'])}"
        + f" LIMIT {parameter(limit)} OFFSET {parameter(offset)}"
    )
    return Query(sql, tuple(arguments))


def _condition(one: Comparison, on: str, parameter: Any) -> str:
    if one.entity in TABLES:
        if one.operator not in TEXT_OPERATORS or one.is_number:
            raise bad(f"{one.entity} are texts: compare them by {', '.join(TEXT_OPERATORS)} with a quoted value")
        test = text_test("x.value", one, parameter)
        table = TABLES[one.entity]
        key = f"x.key = {parameter(one.key)}"
        return f"EXISTS (SELECT FROM {table} AS x WHERE x.model_id = m.model_id AND {key} AND {test})"
    if one.entity in ("", "attributes"):
        return _attribute(one, parameter)
    if one.entity == "metrics":
        return _metric(one, on, parameter)
    raise bad(f"Invalid entity type {one.entity!r}; say attributes, metrics, params or tags")


def _metric(one: Comparison, on: str, parameter: Any) -> str:
    if one.operator not in NUMBER_OPERATORS or not one.is_number:
        raise bad(f"metrics are compared by {', '.join(NUMBER_OPERATORS)} with a number, unlike {one.key!r:.100}")
    operator = "<>" if one.operator == "!=" else one.operator
    # PostgreSQL puts NaN above all numbers; a comparison with it is never true.
    test = f"x.value <> 'NaN' AND x.value {operator} {parameter(float(one.value or 0))}::float8"  # type: ignore[arg-type]
    where = f" AND ({on})" if on else ""
    return f"EXISTS (SELECT FROM {METRICS} AND x.key = {parameter(one.key)} AND {test}{where})"


def _on(one: OnDataset, parameter: Any) -> str:
    digest = f" AND x.dataset_digest = {parameter(one.digest)}" if one.digest else ""
    return f"x.dataset_name = {parameter(one.name)}{digest}"


def _attribute(one: Comparison, parameter: Any) -> str:
    if one.key in NUMBERS:
        if one.operator not in NUMBER_OPERATORS or not one.is_number:
            raise bad(f"{one.key} is a number: compare it by {', '.join(NUMBER_OPERATORS)} with a number")
        operator = "<>" if one.operator == "!=" else one.operator
        return f"{NUMBERS[one.key]} {operator} {parameter(one.value)}::float8"
    if one.key not in TEXTS:
        raise bad(f"Invalid attribute key {one.key!r}; known are {', '.join([*TEXTS, *NUMBERS])}")
    if one.operator not in TEXT_OPERATORS or one.is_number:
        raise bad(f"{one.key} is a text: compare it by {', '.join(TEXT_OPERATORS)} with a quoted value")
    if one.key == "status":
        one = _status(one)
    return text_test(TEXTS[one.key], one, parameter)


def _status(one: Comparison) -> Comparison:
    said = STATUSES.get(one.value, one.value) if isinstance(one.value, str) else None
    if said not in STATUSES.values() or one.operator not in ("=", "!="):
        raise bad(f"a status is compared by = or != with one of {', '.join(STATUSES)}")
    return Comparison(one.entity, one.key, one.operator, said)


def _order(said: ModelOrder, parameter: Any) -> str:
    one, known = said.order, TEXTS | NUMBERS
    if one.entity == "metrics":
        where = f" AND {_on(said.dataset, parameter)}" if said.dataset is not None else ""
        latest = f"SELECT x.value FROM {METRICS} AND x.key = {parameter(one.key)}{where} ORDER BY {LATEST} LIMIT 1"
        return f"({latest}) {'ASC' if one.ascending else 'DESC'} NULLS LAST"
    if one.entity not in ("", "attributes") or one.key not in known:
        raise bad(f"logged models are ordered by {', '.join(known)}, not by {one.key!r}")
    return f"{known[one.key]} {'ASC' if one.ascending else 'DESC'} NULLS LAST"
