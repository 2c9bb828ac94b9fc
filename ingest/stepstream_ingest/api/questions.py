"""What every search of the JSON API has in common: a filter, an order, a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from stepstream_ingest import filters, pages
from stepstream_ingest.filters import Comparison, Order

View = Literal["active", "deleted", "all"]
Filter = Annotated[str, Meta(description="MLflow's filter language, such as metrics.loss < 0.5 AND tags.env = 'a'")]
Orders = Annotated[list[str], Meta(description='such as "metrics.loss ASC"; of what is equal the newest comes first')]
PageToken = Annotated[str, Meta(description="next_page_token of the page before, of the same question")]
Found = TypeVar("Found")


class Question(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A filter, and where the page begins."""

    filter: Filter = ""
    page_token: PageToken = ""


class Ordered(Question, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The same with an order, as all but logged models have it."""

    order_by: Orders = []

    def orders(self) -> Sequence[Order]:
        """Its keys. Raises ApiError."""
        return [filters.parse_order(one) for one in self.order_by]


@dataclass(frozen=True, slots=True)
class Page:
    """A question as the slices take it."""

    clauses: Sequence[Comparison]
    offset: int
    limit: int
    question: tuple[Any, ...]

    def cut(self, found: Sequence[Found]) -> tuple[Sequence[Found], str | None]:
        """What is on the page, and the token of the next: one more than `limit` was asked for."""
        more = len(found) > self.limit
        return found[: self.limit], pages.token(self.offset + self.limit, self.question) if more else None


def page(said: Question, orders: Sequence[Any], limit: int, *more: Any, bare: str = filters.BARE) -> Page:
    """Read a question; `more` is whatever else makes it another one. Raises ApiError."""
    question = (said.filter, orders, *more)
    return Page(
        clauses=filters.parse(said.filter, bare),
        offset=pages.offset(said.page_token, question),
        limit=limit,
        question=question,
    )
