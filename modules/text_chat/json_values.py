"""JSON as old stores hold it: read whatever Python's json module once wrote, hand on only what every encoder takes.

msgspec reads nearly all of it. What it refuses (NaN and Infinity, lone surrogates, numbers beyond a double) is read
again by the standard library and made plain: such numbers become their names, such characters U+FFFD.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from modules.core.plain_json import plain

_LONGEST_INTEGER = 4000  # beyond 4300 digits Python refuses to convert


class Unreadable(ValueError):
    """Not JSON by any reading."""


def read_value(data: bytes) -> tuple[Any, bool]:
    """The value that *data* spells, and whether something in it had to be made plain. Raises Unreadable."""
    try:
        return msgspec.json.decode(data), False
    except (msgspec.DecodeError, RecursionError):
        pass  # the standard library reads more
    try:
        return plain(json.loads(data.decode("utf-8"), parse_int=_integer)), True
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits
