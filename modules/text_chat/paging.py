"""Which part of a list a page is. Pure."""

from __future__ import annotations

from modules.core.errors import ValidationError

MAX_PAGE = 1000
ORDERS = ("asc", "desc")


def check_page(limit: int, offset: int, after: str | None, before: str | None, order: str) -> None:
    """Raises ValidationError, naming the parameter, for a page that nobody can mean."""
    if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise ValidationError(f"limit must be from 1 to {MAX_PAGE}, not {limit!r}", param="limit")
    if not isinstance(offset, int) or offset < 0:
        raise ValidationError(f"offset must be 0 or more, not {offset!r}", param="offset")
    if offset and (after or before):
        raise ValidationError("a page starts at an offset or at a cursor, not at both", param="offset")
    if order not in ORDERS:
        raise ValidationError(f"order must be asc or desc, not {order!r}", param="order")


def window(
    total: int, limit: int, *, offset: int = 0, after: int | None = None, before: int | None = None
) -> tuple[int, int]:
    """First place of the page and the one past its last, in the order in which the list is shown.

    *after* and *before* are places in that order, and are not part of the page. With *before* alone, the page is
    the one that ends there.
    """
    low = 0 if after is None else after + 1
    high = total if before is None else before
    if after is None and before is not None:
        return max(low, high - limit), high
    start = min(low + offset, max(low, high))
    return start, max(start, min(start + limit, high))
