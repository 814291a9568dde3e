"""Pages of lists that a module gives as a whole, because they are short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from config.settings import Pages
from modules.core.errors import NotFound
from modules.text_chat.paging import window

from .pages import PageQuery, page_of


async def page_of_whole(query: PageQuery, pages: Pages, items: Sequence[Any]) -> dict[str, Any]:
    """The page of *query*; *items* have an ``id`` and are in the order ``asc``. Raises NotFound for a cursor that is
    none of them."""

    async def ask(*, limit: int, after: str | None, before: str | None, order: str) -> Sequence[Any]:
        shown = list(items) if order == "asc" else list(reversed(items))
        places = {one.id: place for place, one in enumerate(shown)}
        for cursor in (after, before):
            if cursor is not None and cursor not in places:
                raise NotFound(f"the list has no {cursor!r}")
        start, stop = window(
            len(shown),
            limit,
            after=None if after is None else places[after],
            before=None if before is None else places[before],
        )
        return shown[start:stop]

    return await page_of(query, pages, ask)
