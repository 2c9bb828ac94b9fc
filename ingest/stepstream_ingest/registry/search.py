"""Models and versions that fit a filter: from clauses to one parameterised query. Pure.

The text of the query is put together from the pieces below; whatever came from outside is a parameter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepstream_ingest.filters import Comparison, Order, bad, text_test

PROMPT_TAG: Final = "mlflow.prompt.is_prompt"
"""MLflow keeps prompts as registered models; who does not ask for them does not see them."""

MODEL_ORDERS: Final = {"name": "m.name", "timestamp": "m.updated_at_ms", "last_updated_timestamp": "m.updated_at_ms"}
VERSION_ORDERS: Final = {
    "name": "m.name",
    "version_number": "v.version",
    "creation_timestamp": "v.created_at_ms",
    "last_updated_timestamp": "v.updated_at_ms",
}
VERSION_TEXTS: Final = {
    "name": "m.name",
    "run_id": "coalesce(replace(v.run_id::text, '-', ''), '')",
    "source_path": "v.source",
}
NUMBER_OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=")
SET_OPERATORS: Final = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
TEXT_OPERATORS: Final = ("=", "!=", "LIKE", "ILIKE")

Parameter = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Query:
    """A statement and its parameters."""

    sql: str
    arguments: tuple[Any, ...]


def models(filters: Sequence[Comparison], orders: Sequence[Order], *, limit: int, offset: int) -> Query:
    """Names of the models of a page, in order. Raises ApiError."""
    arguments: list[Any] = []
    parameter = _parameters(arguments)
    prompts, others = _prompts(filters)
    tag = "SELECT FROM registered_model_tags AS t WHERE t.registered_model_id = m.registered_model_id AND t.key = "
    conditions = [_prompt_condition(tag, prompts, parameter)]
    for one in others:
        if one.entity in ("tag", "tags"):
            conditions.append(_tag(tag, one, parameter))
        elif one.entity in ("", "attribute") and one.key == "name":
            conditions.append(_text("m.name", one, SET_OPERATORS, parameter))
        else:
            raise bad(f"Invalid attribute name: {_said(one)}; registered models are searched by name and tags.<key>")
    keys = [*_orders(orders, MODEL_ORDERS), "m.name"]
    sql = "SELECT m.name FROM registered_models AS m WHERE " + " AND ".join(conditions)
    return _page(sql, keys, arguments, parameter, limit, offset)


def versions(filters: Sequence[Comparison], orders: Sequence[Order], *, limit: int, offset: int) -> Query:
    """Names and numbers of the versions of a page, in order. Raises ApiError."""
    arguments: list[Any] = []
    parameter = _parameters(arguments)
    prompts, others = _prompts(filters)
    tag = (
        "SELECT FROM model_version_tags AS t WHERE t.registered_model_id = v.registered_model_id "
        "AND t.version = v.version AND t.key = "
    )
    conditions = [_prompt_condition(tag, prompts, parameter)]
    conditions += [
        _tag(tag, one, parameter) if one.entity in ("tag", "tags") else _version(one, parameter) for one in others
    ]
    keys = _orders(orders, VERSION_ORDERS) or ["v.updated_at_ms DESC"]
    keys += ["m.name", "v.version DESC"]
    sql = (
        "SELECT m.name, v.version FROM model_versions AS v JOIN registered_models AS m USING (registered_model_id) "
        "WHERE " + " AND ".join(conditions)
    )
    return _page(sql, keys, arguments, parameter, limit, offset)


def _version(one: Comparison, parameter: Parameter) -> str:
    if one.entity not in ("", "attribute", "attributes"):
        raise bad(f"Invalid entity type: {one.entity!r}")
    if one.key == "version_number":
        if one.operator not in NUMBER_OPERATORS:
            raise bad(f"Invalid comparator for attribute version_number: {one.operator}")
        try:
            number = one.value if isinstance(one.value, int) else int(str(one.value))
        except ValueError:
            raise bad(f"Invalid value for numeric attribute 'version_number': {one.value!r:.60}") from None
        return f"v.version {'<>' if one.operator == '!=' else one.operator} {parameter(number)}::bigint"
    if one.key not in VERSION_TEXTS:
        raise bad(f"Invalid attribute name: {_said(one)}; known are {', '.join([*VERSION_TEXTS, 'version_number'])}")
    allowed = TEXT_OPERATORS if one.key == "source_path" else SET_OPERATORS
    return _text(VERSION_TEXTS[one.key], one, allowed, parameter)


def _prompts(filters: Sequence[Comparison]) -> tuple[bool, list[Comparison]]:
    """Whether prompts are asked for, and the clauses that do not say."""
    about = [one for one in filters if one.entity in ("tag", "tags") and one.key == PROMPT_TAG]
    wanted = any((one.operator, one.value) in (("=", "true"), ("!=", "false")) for one in about)
    return wanted, [one for one in filters if one not in about]


def _prompt_condition(tag: str, prompts: bool, parameter: Parameter) -> str:
    test = f"EXISTS ({tag}{parameter(PROMPT_TAG)} AND t.value = 'true')"
    return test if prompts else f"NOT {test}"


def _tag(tag: str, one: Comparison, parameter: Parameter) -> str:
    if one.operator not in TEXT_OPERATORS:
        raise bad(f"Invalid comparator for tag: {one.operator}")
    return f"EXISTS ({tag}{parameter(one.key)} AND {_text('t.value', one, TEXT_OPERATORS, parameter)})"


def _text(column: str, one: Comparison, allowed: Sequence[str], parameter: Parameter) -> str:
    if one.operator not in allowed:
        raise bad(f"Invalid comparator for attribute {one.key}: {one.operator}")
    if one.is_number:
        raise bad(f"{one.key} is a text: its value is quoted")
    return text_test(column, one, parameter)


def _orders(orders: Sequence[Order], known: Mapping[str, str]) -> list[str]:
    keys = []
    for one in orders:
        if one.key not in known or one.entity not in ("", "attribute"):
            raise bad(f"Invalid order by key '{one.key[:60]}' specified. Valid keys are {', '.join(known)}")
        keys.append(f"{known[one.key]} {'ASC' if one.ascending else 'DESC'}")
    if len({known[one.key] for one in orders}) < len(orders):
        raise bad("`order_by` contains duplicate fields")
    return keys


def _page(sql: str, keys: Sequence[str], arguments: list[Any], parameter: Parameter, limit: int, offset: int) -> Query:
    page = f"{sql} ORDER BY {', '.join(keys)} LIMIT {parameter(limit)} OFFSET {parameter(offset)}"
    return Query(page, tuple(arguments))


def _parameters(arguments: list[Any]) -> Parameter:
    def parameter(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    return parameter


def _said(one: Comparison) -> str:
    return f"{one.entity}.{one.key}" if one.entity else one.key
