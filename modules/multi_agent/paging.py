"""A page of a list, by cursors that are ids. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from modules.core.errors import NotFound, ValidationError

MAX_PAGE = 1000


class _Named(Protocol):
    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=_Named)


def page_of(
    items: Sequence[N], limit: int, *, after: str | None = None, before: str | None = None, order: str = "asc"
) -> list[N]:
    """At most *limit* of *items*, which come in ascending order, beyond *after* and short of *before* in *order*.

    With *before* alone, the page is the one that ends there. Raises ValidationError, and NotFound for a cursor that
    is no item's id.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        raise ValidationError(f"limit must be from 1 to {MAX_PAGE}, not {limit!r}", param="limit")
    if order not in ("asc", "desc"):
        raise ValidationError(f"order must be asc or desc, not {order!r}", param="order")
    shown = list(items) if order == "asc" else list(reversed(items))
    places = {item.id: place for place, item in enumerate(shown)}
    for cursor in (after, before):
        if cursor is not None and cursor not in places:
            raise NotFound(f"nothing here has the id {cursor!r}")
    low = 0 if after is None else places[after] + 1
    high = len(shown) if before is None else places[before]
    if after is None and before is not None:
        return shown[max(0, high - limit) : high]
    return shown[low : max(low, min(low + limit, high))]
