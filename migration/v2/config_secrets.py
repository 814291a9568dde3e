"""Telling secrets in configurations by the names of their keys, so that their values go nowhere."""

from __future__ import annotations

import re
from typing import Any

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALWAYS = frozenset(
    {
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "secrets",
        "jwt",
        "credential",
        "credentials",
        "authorization",
    }
)
_AT_THE_END = frozenset({"key", "keys", "apikey", "apikeys"})
_TOKENS = frozenset({"token", "tokens"})
_COUNTED = frozenset({"max", "min", "per", "count", "limit", "number", "size", "chunk"})


def looks_secret(key: str, value: Any) -> bool:
    """Whether *value*, under *key*, must be taken for a secret.

    Switches (``requires_api_key``), absent values and counts of tokens (``max_tokens_per_chunk``) are none.
    """
    if value is None or isinstance(value, bool):
        return False
    words = [word.lower() for word in _WORDS.findall(key)]
    if _ALWAYS & set(words):
        return True
    if words and words[-1] in _AT_THE_END:
        return True
    return bool(_TOKENS & set(words)) and not _COUNTED & set(words) and not isinstance(value, int | float)


def without_secrets(key: str, value: Any, found: list[str]) -> Any:
    """*value* without the members of it that look secret; their dotted names are appended to *found*."""
    if isinstance(value, dict):
        kept = {}
        for name, member in value.items():
            if looks_secret(str(name), member):
                found.append(f"{key}.{name}" if key else str(name))
            else:
                kept[name] = without_secrets(f"{key}.{name}" if key else str(name), member, found)
        return kept
    if isinstance(value, list):
        return [without_secrets(f"{key}.{index}", item, found) for index, item in enumerate(value)]
    return value
