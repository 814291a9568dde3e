"""Answers in JSON: any value that a module gives, also what was migrated and is no strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

_ENCODE = msgspec.json.Encoder().encode


def encoded(value: Any) -> bytes:
    """*value* as JSON in UTF-8. Numbers that JSON does not have become null; a lone surrogate becomes its escape."""
    try:
        return _ENCODE(value)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError):
        # Stored elsewhere: huge integers, half a character. Slower, and takes them.
        return json.dumps(_plain(value), ensure_ascii=True, allow_nan=False).encode()


class Json(Response):
    """*content* encoded at once, in this thread: for what is small. Large values are encoded in a thread first."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else encoded(content)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
