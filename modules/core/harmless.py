"""What of an event may be noted by whoever watches the platform: names of things, numbers, truth values. Pure.

Everything else of it, whatever its key, is left out where the event is emitted: what people wrote does not leave the
process for the sake of a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST_ITEMS = 64
_LONGEST_TEXT = 512
_MOST_KEYS = 4_096
_SCALARS = frozenset({bool, int, float})

# Texts of events that are no ids and that nobody wrote.
_HARMLESS = frozenset(
    {"id", "code", "event", "finish_reason", "kind", "memory_type", "reason", "role", "status", "strategy"}
)


def about(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an event is about: its ids, numbers and truth values, also those of an object in it, by dotted names."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if type(value) is dict:
            for below, inner in value.items():
                if type(inner) in _SCALARS or (type(inner) is str and _is_name(below, inner)):
                    found[f"{key}.{below}"] = inner
        elif type(value) in _SCALARS or (type(value) is str and _is_name(key, value)):
            found[key] = value
        if len(found) >= _MOST_ITEMS:
            break
    return found


def _is_name(key: object, text: str) -> bool:
    return _NAMING[key] and len(text) <= _LONGEST_TEXT


class _Naming(dict[object, bool]):
    """Of a key of an event, whether its text names something. Every event that anybody emits is asked for: what a key
    means is looked up, not worked out. Keys come from code, so they are few."""

    def __missing__(self, key: object) -> bool:
        is_naming = isinstance(key, str) and (key.endswith("_id") or key in _HARMLESS)
        if len(self) < _MOST_KEYS:
            self[key] = is_naming
        return is_naming


_NAMING = _Naming()
