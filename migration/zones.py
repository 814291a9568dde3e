"""The offset that a naive local timestamp of v2 had, when the operator knows the zone of the old host."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_NAIVE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?")


@lru_cache(maxsize=8)
def zone(name: str) -> ZoneInfo:
    """The zone of that IANA name; `ValueError` naming it when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone is called {name!r}; use an IANA name such as America/New_York") from error


def offset_of(timestamp: str, zone_name: str) -> str:
    """``+HH:MM`` for a naive ISO 8601 *timestamp*, and the empty string for any other text.

    Of the two readings of an hour that a clock change repeats, the first is taken. Raises `ValueError` for an unknown
    zone.
    """
    if not _NAIVE.fullmatch(timestamp):
        return ""
    place = zone(zone_name)
    try:
        offset = datetime.fromisoformat(timestamp).replace(tzinfo=place).utcoffset()
    except (ValueError, OverflowError):
        return ""
    if offset is None:
        return ""
    sign = "-" if offset < timedelta(0) else "+"
    minutes, seconds = divmod(abs(offset) // timedelta(seconds=1), 60)
    text = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    return f"{text}:{seconds:02d}" if seconds else text
