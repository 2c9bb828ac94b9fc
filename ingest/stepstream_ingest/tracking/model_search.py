"""Logged models that fit a filter: from clauses to one parameterised query. Pure.

The text of the query is put together from the pieces below; whatever came from outside is a parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepstream_ingest.filters import Comparison, Order, bad, text_test

MODEL_ID: Final = "('m-' || replace(m.model_id::text, '-', ''))"
TEXTS: Final = {
    "name": "m.name",
    "model_id": MODEL_ID,
    "model_type": "m.model_type",
    "status": "m.status",
    "status_message": "nullif(m.status_message, '')",
    "source_run_id": "coalesce(replace(m.source_run_id::text, '-', ''), '')",
    "lifecycle_stage": "m.lifecycle_stage",
    "experiment_id": "m.experiment_id::text",
    "artifact_location": "((SELECT coalesce(nullif(e.artifact_location, ''), 'mlflow-artifacts:/' || m.experiment_id) "
    f"FROM experiments AS e WHERE e.experiment_id = m.experiment_id) || '/models/' || {MODEL_ID} || '/artifacts')",
}
NUMBERS: Final = {
    **dict.fromkeys(("creation_timestamp", "creation_time", "creation_timestamp_ms"), "m.created_at_ms"),
    **dict.fromkeys(("last_updated_timestamp", "last_updated_timestamp_ms"), "m.updated_at_ms"),
}
ORDERS: Final = TEXTS | NUMBERS | {"experiment_id": "m.experiment_id"}
STATUSES: Final = {
    **dict.fromkeys(("PENDING", "1"), "LOGGED_MODEL_PENDING"),
    **dict.fromkeys(("READY", "2"), "LOGGED_MODEL_READY"),
    **dict.fromkeys(("FAILED", "3"), "LOGGED_MODEL_UPLOAD_FAILED"),
}
"""By name and by MLflow's own number; the whole name is one too."""
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
    dataset: OnDataset | None = None

    @classmethod
    def by(cls, field_name: str, ascending: bool, dataset: OnDataset | None) -> "ModelOrder":
        """By an attribute, or by metrics.NAME, where all after the point is the name."""
        entity, dot, key = field_name.partition(".")
        return cls(Order(entity, key, ascending) if dot else Order("", entity, ascending), dataset)


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
    keys = [key for one in orders for key in _order(one, parameter)]
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
        test = text_test("x.value", _as_text(one), parameter)
        table = TABLES[one.entity]
        key = f"x.key = {parameter(one.key)}"
        return f"EXISTS (SELECT FROM {table} AS x WHERE x.model_id = m.model_id AND {key} AND {test})"
    if one.entity in ("", "attributes"):
        return _attribute(one, parameter)
    if one.entity == "metrics":
        return _metric(one, on, parameter)
    raise bad(f"Invalid entity type {one.entity!r:.100}; say attributes, metrics, params or tags")


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
        raise bad(f"Invalid attribute key {one.key!r:.100}; known are {', '.join([*TEXTS, *NUMBERS])}")
    one = _as_text(one)
    if one.key == "status":
        one = _status(one)
    return text_test(TEXTS[one.key], one, parameter)


def _as_text(one: Comparison) -> Comparison:
    """A number that a text is compared with is meant as it is written."""
    if one.operator not in TEXT_OPERATORS:
        raise bad(f"{one.key:.100} is a text: compare it by {', '.join(TEXT_OPERATORS)}")
    return Comparison(one.entity, one.key, one.operator, one.written) if one.is_number else one


def _status(one: Comparison) -> Comparison:
    if one.operator in ("LIKE", "ILIKE"):
        return one
    said = one.value if isinstance(one.value, tuple) else (str(one.value),)
    names = tuple(STATUSES.get(word, word) for word in said)
    if not set(names) <= set(STATUSES.values()):
        raise bad(f"a status is one of {', '.join(STATUSES)}, which {names} is not")
    return Comparison(one.entity, one.key, one.operator, names if isinstance(one.value, tuple) else names[0])


def _order(said: ModelOrder, parameter: Any) -> list[str]:
    one = said.order
    direction = "ASC" if one.ascending else "DESC"
    if one.entity == "metrics":
        where = f" AND {_on(said.dataset, parameter)}" if said.dataset is not None else ""
        latest = f"(SELECT x.value FROM {METRICS} AND x.key = {parameter(one.key)}{where} ORDER BY {LATEST} LIMIT 1)"
        # A model that diverged is the best in neither direction, as in a search of runs.
        return [f"{latest} IS NULL", f"{latest} = 'NaN'", f"{latest} {direction}"]
    if one.entity not in ("", "attributes") or one.key not in ORDERS:
        raise bad(f"logged models are ordered by {', '.join(ORDERS)}, not by {one.key!r:.100}")
    return [f"{ORDERS[one.key]} {direction} NULLS LAST"]
