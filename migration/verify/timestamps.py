"""Naive times of v2, and the offset that a source time zone gives them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_NAIVE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)(?::?(\d\d))?")


def offset_at(stamp: str, zone: ZoneInfo) -> timedelta | None:
    """The offset of *zone* at the naive time *stamp*; None where *stamp* is no naive time."""
    if not _NAIVE.fullmatch(stamp):
        return None
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return moment.replace(tzinfo=zone).utcoffset()


def carries_offset(found: str, stamp: str, zone: ZoneInfo) -> bool:
    """Whether *found* is *stamp* with the offset of *zone* appended, and nothing else."""
    offset = offset_at(stamp, zone)
    return offset is not None and found.startswith(stamp) and _offset(found[len(stamp) :]) == offset


def _offset(text: str) -> timedelta | None:
    if text == "Z":
        return timedelta(0)
    parts = _OFFSET.fullmatch(text)
    if parts is None:
        return None
    size = timedelta(hours=int(parts[2]), minutes=int(parts[3]), seconds=int(parts[4] or 0))
    return -size if parts[1] == "-" else size


def is_moment(found: str, moments_ns: list[int]) -> bool:
    """Whether *found* is a time with an offset, within a second of one of *moments_ns* (since the epoch)."""
    try:
        moment = datetime.fromisoformat(found)
    except ValueError:
        return False
    if moment.tzinfo is None:
        return False
    return any(abs(moment.timestamp() - moment_ns / 1e9) <= 1 for moment_ns in moments_ns)
