"""Runs that fit a filter: from clauses to one parameterised query. Pure.

The text of the query is put together from the pieces below; whatever came from outside is a parameter.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from stepstream_ingest.filters import Comparison, Order, bad, listed, text_test

Stage = Literal["active", "deleted", "all"]
Parameter = Callable[[Any], str]

RUN_ID: Final = re.compile("[0-9a-f]{32}")
ENTITIES: Final = {
    **dict.fromkeys(("", "attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}
TEXTS: Final = {
    "run_id": "replace(r.run_id::text, '-', '')",
    "run_name": "r.name",
    "status": "r.status",
    "user_id": "r.user_id",
    "artifact_uri": "((SELECT coalesce(nullif(e.artifact_location, ''), 'mlflow-artifacts:/' || r.experiment_id) "
    "FROM experiments AS e WHERE e.experiment_id = r.experiment_id) || '/' || replace(r.run_id::text, '-', '') "
    "|| '/artifacts')",
}
COLUMNS: Final = "r.run_id, r.experiment_id, r.name, r.status, r.user_id, r.start_time_ms, r.end_time_ms"
CHOSEN_COLUMNS: Final = COLUMNS.replace("r.", "c.")
NUMBERS: Final = {"start_time": "r.start_time_ms", "end_time": "r.end_time_ms"}
ALIASES: Final = {
    **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
    **dict.fromkeys(("created", "Created"), "start_time"),
}
DATASETS: Final = {"name": "d.name", "digest": "d.digest", "context": "(u.tags ->> 'mlflow.data.context')"}
TEXT_OPERATORS: Final = ("=", "!=", "LIKE", "ILIKE")
NUMBER_OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=")
INDEXED_CHARS: Final = 200
"""Of the longest value that is in the indexes params_of_value and tags_of_value."""
LARGEST: Final = "1.7976931348623157e308::float8"
STAGES: Final = {
    "active": " AND r.lifecycle_stage = 'active'",
    "deleted": " AND r.lifecycle_stage = 'deleted'",
    "all": "",
}

LATEST: Final = """
WITH {chosen}, said AS MATERIALIZED (
    SELECT run_id, keys IS NULL AS is_wide, {said} FROM latest WHERE run_id {among}
), fresh AS MATERIALIZED (
    SELECT DISTINCT run_id FROM frames WHERE run_id {among}
), others AS (
    SELECT run_id, {found} FROM (SELECT DISTINCT ON (run_id, key) run_id, key, value FROM (
        SELECT s.run_id, s.key, s.rank, s.attempt, s.last_step AS step, s.last_time_ms AS time_ms, s.last_value AS value
        FROM series AS s WHERE s.key = ANY({keys}::text[]) AND s.points > 0
            AND s.run_id = ANY (ARRAY(SELECT run_id FROM said WHERE is_wide))
        UNION ALL
        SELECT l.run_id, x.key, x.rank, x.attempt, x.step, x.time_ms, x.value
        FROM latest AS l, unnest(l.keys, l.ranks, l.attempts, l.last_steps, l.last_times_ms, l.lasts)
            AS x (key, rank, attempt, step, time_ms, value)
        WHERE x.key = ANY({keys}::text[]) AND l.run_id = ANY (ARRAY(SELECT run_id FROM fresh))
        UNION ALL
        SELECT f.run_id, x.key, coalesce(f.rank, -1), f.attempt, x.step, x.time_ms, x.value
        FROM frames AS f, unnest(f.keys, f.last_steps, f.last_times_ms, f.lasts) AS x (key, step, time_ms, value)
        WHERE x.key = ANY({keys}::text[]) AND f.run_id {among}
    ) AS part
    ORDER BY run_id, key, rank, attempt DESC, step DESC, time_ms DESC, value = 'NaN', value DESC
    ) AS each GROUP BY run_id
)
SELECT r.run_id FROM (
    SELECT {columns}, {values}
    FROM chosen AS c FULL JOIN said AS s ON s.run_id = c.run_id FULL JOIN others AS o ON o.run_id = c.run_id
)"""
"""Runs with their latest values: as a run says them in its one row; where frames wait, or there are too many keys for
that row, as frames and series have them."""
MANY: Final = "IN (SELECT run_id FROM chosen)"
"""Of runs that may be most there are: PostgreSQL may also read their table from one end to the other."""
FEW: Final = "= ANY (ARRAY(SELECT run_id FROM chosen))"
"""Of runs that have one value of a param or tag: one walk through the index, where a join would begin anew for each."""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement and its parameters."""

    sql: str
    arguments: tuple[Any, ...]


def compile_search(
    experiment_ids: Sequence[int],
    filters: Sequence[Comparison],
    orders: Sequence[Order],
    *,
    stage: Stage,
    limit: int,
    offset: int,
) -> Query:
    """The ids of the runs of a page, in order. Raises ApiError."""
    return _Search(experiment_ids).compile(filters, orders, stage, limit, offset)


class _Search:
    """One query while it is put together."""

    def __init__(self, experiment_ids: Sequence[int]) -> None:
        self._arguments: list[Any] = [list(experiment_ids)]
        self._metrics: dict[str, str] = {}
        """In which column the latest values of a key are."""
        self._narrow = False

    def compile(
        self, filters: Sequence[Comparison], orders: Sequence[Order], stage: Stage, limit: int, offset: int
    ) -> Query:
        cheap: list[str] = []
        by_metric: list[str] = []
        for one in filters:
            (by_metric if _entity(one.entity) == "metric" else cheap).append(self._condition(one))
        names = [(_entity(one.entity), ALIASES.get(one.key, one.key)) for one in orders]
        if len(set(names)) < len(names):
            raise bad("`order_by` contains duplicate fields")
        keys = [key for one in orders for key in self._order(one)]
        if ("attribute", "start_time") not in names:
            keys.append("r.start_time_ms DESC NULLS LAST")
        conditions = "".join(f" AND {condition}" for condition in cheap)
        chosen = (
            f"chosen AS MATERIALIZED (SELECT {COLUMNS} FROM runs AS r "
            f"WHERE r.experiment_id = ANY($1::bigint[]){STAGES[stage]}{conditions})"
        )
        runs = self._with_latest(chosen) if self._metrics else f"WITH {chosen} SELECT r.run_id FROM chosen"
        where = f" WHERE {' AND '.join(by_metric)}" if by_metric else ""
        sql = (
            f"{runs} AS r{where} "
            f"ORDER BY {', '.join([*keys, 'r.run_id'])} LIMIT {self._parameter(limit)} OFFSET {self._parameter(offset)}"
        )
        return Query(sql, tuple(self._arguments))

    def _with_latest(self, chosen: str) -> str:
        keys = {name: self._parameter(key) for key, name in self._metrics.items()}
        # A full join is never a loop in a loop, however few runs PostgreSQL expects.
        return LATEST.format(
            chosen=chosen,
            columns=CHOSEN_COLUMNS,
            said=", ".join(f"lasts[array_position(keys, {key}::text)] AS {name}" for name, key in keys.items()),
            found=", ".join(f"max(value) FILTER (WHERE key = {key}::text) AS {name}" for name, key in keys.items()),
            values=", ".join(f"CASE WHEN o.run_id IS NULL THEN s.{name} ELSE o.{name} END AS {name}" for name in keys),
            keys=self._parameter(list(self._metrics)),
            among=FEW if self._narrow else MANY,
        )

    def _parameter(self, value: Any) -> str:
        self._arguments.append(value)
        return f"${len(self._arguments)}"

    def _metric(self, key: str) -> str:
        return f"r.{self._metrics.setdefault(key, f'm{len(self._metrics)}')}"

    def _condition(self, one: Comparison) -> str:
        match _entity(one.entity):
            case "metric":
                return self._metric_condition(one)
            case "param":
                return self._text_of("params AS x WHERE x.run_id = r.run_id", one)
            case "tag":
                return self._text_of("tags AS x WHERE x.run_id = r.run_id AND x.value IS NOT NULL", one)
            case "dataset":
                return self._dataset(one)
        return self._attribute(one)

    def _metric_condition(self, one: Comparison) -> str:
        if one.operator not in NUMBER_OPERATORS or not one.is_number:
            raise bad(f"metrics are compared by {', '.join(NUMBER_OPERATORS)} with a number, unlike {one.key!r:.100}")
        value = self._metric(one.key)
        limited = f"greatest(least({value}, {LARGEST}), -{LARGEST})"
        test = f"{limited} {_sql(one.operator)} {self._parameter(float(one.value or 0))}::float8"  # type: ignore[arg-type]
        # PostgreSQL puts NaN above all numbers, and MLflow lets it be equal to nothing; greatest() passes over null.
        if one.operator == "!=":
            return f"({value} = 'NaN' OR {value} IS NOT NULL AND {test})"
        return f"({value} <> 'NaN' AND {test})"

    def _text_of(self, rows: str, one: Comparison) -> str:
        key = f"x.key = {self._parameter(one.key)}"
        if one.operator == "IS NULL":
            return f"NOT EXISTS (SELECT FROM {rows} AND {key})"
        if one.operator == "IS NOT NULL":
            return f"EXISTS (SELECT FROM {rows} AND {key})"
        _check_text(one, TEXT_OPERATORS)
        # A database that is not in UTF-8 counts bytes.
        if one.operator == "=" and len(str(one.value).encode(errors="surrogatepass")) <= INDEXED_CHARS:
            return self._text_is(rows, key, one)
        return f"EXISTS (SELECT FROM {rows} AND {key} AND {text_test('x.value', one, self._parameter)})"

    def _text_is(self, rows: str, key: str, one: Comparison) -> str:
        # From the value to its runs, where the index by value serves; the other tests go from each run to its value.
        self._narrow = True
        table = rows.replace("x.run_id = r.run_id", f"length(x.value) <= {INDEXED_CHARS}")
        found = f"SELECT x.run_id FROM {table} AND {key} AND x.value = {self._parameter(one.value)}::text"
        return f"r.run_id = ANY (ARRAY({found}))"

    def _dataset(self, one: Comparison) -> str:
        if one.key not in DATASETS:
            raise bad(f"Invalid dataset key {one.key!r:.60}; known are {', '.join(DATASETS)}")
        _check_text(one, (*TEXT_OPERATORS, "IN", "NOT IN"))
        test = text_test(DATASETS[one.key], one, self._parameter)
        rows = "run_datasets AS u JOIN datasets AS d USING (dataset_id) WHERE u.run_id = r.run_id"
        return f"EXISTS (SELECT FROM {rows} AND {test})"

    def _attribute(self, one: Comparison) -> str:
        key = ALIASES.get(one.key, one.key)
        if key in NUMBERS:
            if one.operator not in NUMBER_OPERATORS or not one.is_number:
                raise bad(f"{key} is compared by {', '.join(NUMBER_OPERATORS)} with a number")
            return f"{NUMBERS[key]} {_sql(one.operator)} {self._parameter(one.value)}::float8"
        if key not in TEXTS:
            raise bad(
                f"Invalid attribute key '{one.key[:60]}' specified. Valid keys are {', '.join([*TEXTS, *NUMBERS])}"
            )
        _check_text(one, (*TEXT_OPERATORS, "IN", "NOT IN") if key == "run_id" else TEXT_OPERATORS)
        if key == "run_id" and one.operator in ("=", "!=", "IN", "NOT IN"):
            return self._run_ids(one)
        return text_test(TEXTS[key], one, self._parameter)

    def _run_ids(self, one: Comparison) -> str:
        """As ids, for which there is an index; a text that is none is no run's."""
        texts = one.value if isinstance(one.value, tuple) else (one.value,)
        ids = replace(one, value=tuple(id for id in map(str, texts) if RUN_ID.fullmatch(id)))
        negated = "NOT " if one.operator in ("!=", "NOT IN") else ""
        return f"r.run_id {negated}IN ({listed(ids, self._parameter, 'uuid')})"

    def _order(self, one: Order) -> list[str]:
        direction = "ASC" if one.ascending else "DESC"
        match _entity(one.entity):
            case "metric":
                value = self._metric(one.key)
                return [f"{value} IS NULL", f"{value} = 'NaN'", f"{value} {direction}"]
            case "param" | "tag" as entity:
                key = self._parameter(one.key)
                value = f"(SELECT x.value FROM {entity}s AS x WHERE x.run_id = r.run_id AND x.key = {key})"
                return [f'{value} COLLATE "C" {direction} NULLS LAST']
            case "attribute":
                # Only `Run name` is an alias that cannot be ordered by.
                key = ALIASES.get(one.key, one.key) if one.key in ("created", "Created") else one.key
                if key in TEXTS or key in NUMBERS:
                    text = f'{TEXTS[key]} COLLATE "C"' if key in TEXTS else NUMBERS[key]
                    return [f"{text} {direction} NULLS LAST"]
        raise bad(
            f"Invalid order_by key {one.entity}.{one.key}; order by metrics, params, tags or an attribute of the run"
        )


def _entity(text: str) -> str:
    found = ENTITIES.get(text)
    if found is None:
        raise bad(f"Invalid entity type '{text[:60]}'. Valid values are attribute, metric, parameter, tag, dataset")
    return found


def _check_text(one: Comparison, allowed: Sequence[str]) -> None:
    if one.operator not in allowed:
        raise bad(f"{one.key} is compared by {', '.join(allowed)}, not by {one.operator}")
    if one.is_number:
        raise bad(f"{one.key} is a text: its value is quoted, as in {one.key} = '{one.value}'")


def _sql(operator: str) -> str:
    return "<>" if operator == "!=" else operator
