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
    """A filter, an order, and where the page begins."""

    filter: Filter = ""
    order_by: Orders = []
    page_token: PageToken = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A question as the slices take it."""

    clauses: Sequence[Comparison]
    orders: Sequence[Order]
    offset: int
    limit: int
    question: tuple[Any, ...]

    def cut(self, found: Sequence[Found]) -> tuple[Sequence[Found], str | None]:
        """What is on the page, and the token of the next: one more than `limit` was asked for."""
        more = len(found) > self.limit
        return found[: self.limit], pages.token(self.offset + self.limit, self.question) if more else None


def page(said: Question, limit: int, *more: Any, bare: str = filters.BARE) -> Page:
    """Read a question; `more` is whatever else makes it another one. Raises ApiError."""
    question = (said.filter, said.order_by, *more)
    return Page(
        clauses=filters.parse(said.filter, bare),
        orders=[filters.parse_order(one) for one in said.order_by],
        offset=pages.offset(said.page_token, question),
        limit=limit,
        question=question,
    )
