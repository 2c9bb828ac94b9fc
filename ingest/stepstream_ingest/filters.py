"""MLflow's filter and order language, from text to frozen values. Pure; what a key means is said by who asks.

metrics.loss < 0.5 AND params.`lora rank` = '16' AND tags.env IN ('a', 'b') AND attributes.name LIKE 'x%'
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, Literal, TypeAlias

from lark import Lark, Token, Transformer
from lark.exceptions import LarkError, UnexpectedInput

from stepstream_ingest.errors import ApiError

MAX_FILTER_CHARS: Final = 4_000_000
"""A list of a hundred thousand runs."""
MAX_TEXTS: Final = 100_500
"""Such a list, and what else may be asked with it."""
MAX_BARE_CHARS: Final = 100_000
"""Without what stands in quotes, and in lists: the time that reading takes grows with these, a quarter of a second."""
MAX_COMPARISONS: Final = 200
KEPT_FILTERS: Final = 256
"""A page that is looked at asks the same question every few seconds."""
MAX_KEPT_CHARS: Final = 1000
INT64: Final = range(-(2**63), 2**63)
INT64_CHARS: Final = 40
"""Python refuses to read whole numbers of thousands of digits."""

Operator: TypeAlias = Literal[
    "=", "!=", "<", "<=", ">", ">=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"
]

GRAMMAR: Final = r"""
start: _AND? (comparison (_AND? comparison)* _AND?)?

comparison: IDENTIFIER OPERATOR value      -> plain
    | IDENTIFIER _IN list                   -> within
    | IDENTIFIER _NOT _IN list              -> not_within
    | IDENTIFIER _IS _NULL                  -> absent
    | IDENTIFIER _IS _NOT _NULL             -> present

value: STRING | NUMBER
list: LIST

IDENTIFIER.1: FIRST ("." REST)?
FIRST: /(?!(?:and|or|not|in|is|null|i?like)\b(?!\s*\.))(?:`[^`]+`|"[^"]+"|[^\W\d]\w*)/i SPACED?
// MLflow takes `Run name` for run_name.
SPACED: / name(?=\s*(?:=|!|<|>|i?like\b))/i
REST: /(?:`[^`]*`|"[^"]*"|'[^']*'|[<bare>]+)/
OPERATOR.2: /!=|<=|>=|=(?!=)|<(?!>)|>|i?like\b/i
STRING: /<string>/
// One token, however long: one for each value would take thirty times as long.
LIST: /\(\s*(?:<string>)(?:\s*,\s*(?:<string>))*\s*(?:,\s*)?\)/
// Digits are not given back: a long number that is none would be tried in as many ways as it has digits, squared.
NUMBER: /-?(?:\d++(?:\.\d*+)?|\.\d++)(?:e[+-]?\d++)?(?![\w.])/i
_AND.3: /and\b/i
_NOT.3: /not\b/i
_IN.3: /in\b(?=\s*\()/i
_IS.3: /is\b/i
_NULL.3: /null\b/i

%import common.WS
%ignore WS
"""

STRING: Final = r"""'[^']*'|"[^"]*\""""
QUOTED: Final = re.compile(rf"{STRING}|`[^`]*`")
QUOTED_LIST: Final = re.compile(r"\(\s*'(?:\s*,\s*')*\s*(?:,\s*)?\)")
BARE: Final = r"\w."
"""Of a key that stands without quotes."""
BARE_OF_MODELS: Final = r"\w.\-\/"
"""The same in searches of logged models, as MLflow has it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One clause; all of them must hold."""

    entity: str
    """Before the first dot, in lower case letters; '' where there is none."""
    key: str
    operator: Operator
    value: str | int | float | tuple[str, ...] | None
    is_number: bool = False
    written: str = ""
    """A number as it stands in the filter."""


@dataclass(frozen=True, slots=True)
class Order:
    """One key of an order."""

    entity: str
    key: str
    ascending: bool


def parse(text: str, bare: str = BARE) -> tuple[Comparison, ...]:
    """The clauses of a filter; none for ''. Raises ApiError that quotes what it could not read."""
    if not text:
        return ()
    if len(text) > MAX_FILTER_CHARS:
        raise bad(f"Invalid filter: it is longer than {MAX_FILTER_CHARS} characters")
    if text.count("'") + text.count('"') > 2 * MAX_TEXTS:
        raise bad(f"Invalid filter: it has more than {MAX_TEXTS} texts")
    if len(text) > MAX_BARE_CHARS and len(QUOTED_LIST.sub("", QUOTED.sub("'", text))) > MAX_BARE_CHARS:
        raise bad(f"Invalid filter: it is longer than {MAX_BARE_CHARS} characters, besides its texts and lists")
    return _read_before(text, bare) if len(text) <= MAX_KEPT_CHARS else _read(text, bare)


def _read(text: str, bare: str) -> tuple[Comparison, ...]:
    try:
        found: tuple[Comparison, ...] = _Reader().transform(_parser(bare).parse(text))
    except UnexpectedInput as error:
        at = error.pos_in_stream or 0
        near = text[max(0, at - 20) : at + 40]
        raise bad(
            f"Invalid clause(s) in filter string: {text[:200]!r}, near {near!r}. A clause is like metrics.loss < 0.5, "
            "params.name = 'value' or tags.name LIKE '%x%'; clauses are joined by AND"
        ) from error
    except LarkError as error:
        raise bad(f"Invalid filter {text[:200]!r}: {error}") from error
    if not found:
        raise bad(f"Invalid filter {text[:200]!r}: it has no clause")
    if len(found) > MAX_COMPARISONS:
        raise bad(f"Invalid filter: it has more than {MAX_COMPARISONS} clauses")
    return found


_read_before: Final = lru_cache(KEPT_FILTERS)(_read)


def parse_order(text: str) -> Order:
    """`metrics.loss DESC`. Raises ApiError."""
    words = text.strip()
    direction = "asc"
    match words.rsplit(None, 1):
        case [head, last] if last.lower() in ("asc", "desc"):
            words, direction = head, last.lower()
    comparison = parse(f"{words} = 'x'") if words else ()
    if len(comparison) != 1 or comparison[0].operator != "=":
        raise bad(f"Invalid order_by clause {text[:200]!r}: say an attribute or metrics.name, and ASC or DESC")
    return Order(comparison[0].entity, comparison[0].key, direction == "asc")


def bad(message: str) -> ApiError:
    """The filter cannot be meant."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def text_test(column: str, one: Comparison, parameter: Callable[[Any], str]) -> str:
    """A comparison of a text column."""
    match one.operator:
        case "=" | "!=":
            return f"{column} {'<>' if one.operator == '!=' else '='} {parameter(one.value)}::text"
        case "LIKE" | "ILIKE":
            return f"{column} {one.operator} {parameter(one.value)}::text"
        case "IN":
            return f"{column} IN ({listed(one, parameter)})"
        case "NOT IN":
            return f"{column} NOT IN ({listed(one, parameter)})"
    raise bad(f"{one.operator} cannot be asked here")


def listed(one: Comparison, parameter: Callable[[Any], str], kind: str = "text") -> str:
    """What IN compares with: rows, which PostgreSQL hashes. An array it would go through for each row it compares.

    It hashes arrays, too, but only in plans that it makes anew for each question.
    """
    return f"SELECT unnest({parameter(list(one.value))}::{kind}[])"  # type: ignore[arg-type]


@cache
def _parser(bare: str) -> Lark:
    return Lark(GRAMMAR.replace("<bare>", bare).replace("<string>", STRING), parser="lalr", lexer="contextual")


class _Reader(Transformer[Token, Any]):
    """From the tree to values."""

    def start(self, found: list[Comparison]) -> tuple[Comparison, ...]:
        """All clauses."""
        return tuple(found)

    def plain(self, parts: list[Any]) -> Comparison:
        """identifier operator value"""
        name, operator, (value, written) = parts
        return Comparison(*_split(name), operator.upper(), value, is_number=bool(written), written=written)

    def within(self, parts: list[Any]) -> Comparison:
        """identifier IN list"""
        return Comparison(*_split(parts[0]), "IN", parts[1])

    def not_within(self, parts: list[Any]) -> Comparison:
        """identifier NOT IN list"""
        return Comparison(*_split(parts[0]), "NOT IN", parts[1])

    def absent(self, parts: list[Any]) -> Comparison:
        """identifier IS NULL"""
        return Comparison(*_split(parts[0]), "IS NULL", None)

    def present(self, parts: list[Any]) -> Comparison:
        """identifier IS NOT NULL"""
        return Comparison(*_split(parts[0]), "IS NOT NULL", None)

    def value(self, parts: list[Token]) -> tuple[str | int | float, str]:
        """A text without its quotes, or a number and how it is written."""
        token = parts[0]
        if token.type == "STRING":
            return str(token[1:-1]), ""
        is_whole = token.lstrip("-").isdecimal() and len(token) <= INT64_CHARS
        return int(token) if is_whole and int(token) in INT64 else float(token), str(token)

    def list(self, parts: list[Token]) -> tuple[str, ...]:
        """Texts without their quotes."""
        return tuple(text[1:-1] for text in re.findall(STRING, parts[0]))


def _split(name: str) -> tuple[str, str]:
    """Entity and key: at the first dot outside of quotes."""
    name = str(name)
    if name[0] in '`"':
        end = name.index(name[0], 1)
        first, rest = name[1:end], name[end + 1 :]
    else:
        first, dot, after = name.partition(".")
        rest = dot + after
    if not rest:
        return "", first
    key = rest[1:]
    return first, key[1:-1] if len(key) > 1 and key[0] in "`\"'" and key[-1] == key[0] else key
