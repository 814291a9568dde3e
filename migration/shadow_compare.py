"""Whether two answers are the same, in canonical form: what the two sides spell differently is no difference. Pure.

Records become their fields, tuples lists, times of one moment one spelling, and numbers their values; a record's fields
that only one side can know are left out (`UNLIKE`). Order counts, save where a call promises none (`UNORDERED`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

from modules.core.clock import moment_of

# Call -> members that differ by nature: where a file stands, when the last change of it was noted, how it is counted.
UNLIKE: Mapping[str, frozenset[str]] = {
    "get_session": frozenset({"updated_at"}),
    "list_sessions": frozenset({"updated_at"}),
    "get_user_profile": frozenset({"updated_at"}),
    "get_session_stats": frozenset(
        {"storage_path", "updated_at", "last_activity", "total_size_bytes", "average_message_size"}
    ),
    "list_documents": frozenset({"path", "size"}),
}
UNORDERED = frozenset({"list_users", "list_personas", "extract_entities"})
_TIMES = frozenset({"timestamp", "created_at", "updated_at", "uploaded_at"})


def canonical(call: str, answer: object) -> Any:
    """*answer* of *call* as plain values that are equal when the answers mean the same."""
    plain = _plain(answer, UNLIKE.get(call, frozenset()))
    if call in UNORDERED:
        return _sorted(plain)
    return plain


def digest(value: object) -> str:
    """Says which value it was, and nothing of what is in it."""
    told = json.dumps(value, sort_keys=True, ensure_ascii=True, default=repr)
    return blake2b(told.encode(), digest_size=8).hexdigest()


def first_difference(one: object, other: object, at: str = "") -> str | None:
    """Where the canonical values differ first: names and places, no contents. None where they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            place = f"{at}.{_shown(name)}"
            if name not in one or name not in other:
                return f"{place} is on one side only"
            if (found := first_difference(one[name], other[name], place)) is not None:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list):
        for number, (left, right) in enumerate(zip(one, other, strict=False)):
            if (found := first_difference(left, right, f"{at}[{number}]")) is not None:
                return found
        return None if len(one) == len(other) else f"{at or 'the answer'} has {len(one)} and {len(other)} items"
    return None if one == other and type(one) is type(other) else f"{at or 'the answer'} differs"


def _plain(value: object, unlike: frozenset[str], name: str = "") -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return str(value) if not math.isfinite(value) else int(value) if value.is_integer() else value
        case str():
            when = moment_of(value) if name in _TIMES else None
            return value if when is None else when.isoformat()
        case bytes() | bytearray() | memoryview():
            return {"bytes": blake2b(bytes(value), digest_size=16).hexdigest()}
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): _plain(one, unlike, str(key)) for key, one in value.items() if key not in unlike}
        case list() | tuple():
            return [_plain(one, unlike) for one in value]
        case set() | frozenset():
            return _sorted([_plain(one, unlike) for one in value])
        case _:
            return _plain(_fields(value), unlike)


def _fields(value: object) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return {"of a kind that is not known": type(value).__name__}


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return sorted((_sorted(one) for one in value), key=lambda one: json.dumps(one, sort_keys=True, default=repr))
    if isinstance(value, dict):
        return {name: _sorted(one) for name, one in value.items()}
    return value


def _shown(name: str) -> str:
    """A member's name, if it can only be a field's; a key that a user may have chosen is a digest."""
    return name if name.isidentifier() and name.islower() and len(name) <= 30 else f"<{digest(name)}>"
