"""Lists are given out in pages: `after` and `before` are ids, `has_more` says whether the list goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from config.settings import Pages
from modules.core.errors import ValidationError
from modules.text_chat.paging import MAX_PAGE

Id = Annotated[str, Field(min_length=1, max_length=1000)]
Ask = Callable[..., Awaitable[Sequence[Any]]]


class Query(BaseModel):
    """Parameters of a query. One that is not known is refused: a misspelt one would else do nothing."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class PageQuery(Query):
    after: Id | None = None
    """Id of the item before the page, in the order of the list."""

    before: Id | None = None
    """Id of the item after the page; alone, it makes the page that ends there."""

    limit: Annotated[int | None, Field(ge=1)] = None
    """Most items of the page."""

    order: Literal["asc", "desc"] = "asc"
    """Oldest or newest first."""

    def most(self, pages: Pages) -> int:
        return most_items(self.limit, pages)


def most_items(limit: int | None, pages: Pages) -> int:
    """Raises ValidationError for more than the settings allow."""
    if limit is None:
        return pages.default_limit
    if limit > pages.max_limit:
        raise ValidationError(f"limit must be from 1 to {pages.max_limit}", param="limit")
    return limit


async def page_of(query: PageQuery, pages: Pages, ask: Ask) -> dict[str, Any]:
    """The page of *query*. *ask* takes ``limit``, ``after``, ``before`` and ``order`` and gives that part of the list.

    One more item than wanted is asked for, to know whether there is one.
    """
    most = query.most(pages)
    window = {"after": query.after, "before": query.before, "order": query.order}
    items = list(await ask(limit=min(most + 1, MAX_PAGE), **window))
    ends_there = query.before is not None and query.after is None
    has_more = len(items) > most
    if has_more:
        items = items[1:] if ends_there else items[:most]
    elif len(items) == most == MAX_PAGE:
        after, before = (None, items[0].id) if ends_there else (items[-1].id, query.before)
        has_more = bool(await ask(limit=1, after=after, before=before, order=query.order))
    return listed([one.to_dict() for one in items], has_more=has_more)


def listed(items: Sequence[dict[str, Any]], *, has_more: bool, id_member: str = "id") -> dict[str, Any]:
    """The shape of every list."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0][id_member] if items else None,
        "last_id": items[-1][id_member] if items else None,
        "has_more": has_more,
    }
