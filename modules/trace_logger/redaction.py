"""What of a value may be written down: secrets never, what people wrote only on request. Pure.

A key says what its value is; a text is also looked through for what secrets look like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

HIDDEN = "[redacted]"
LONGEST_TEXT = 2_048
_MOST_ITEMS = 64
_COUNTS = frozenset({bool, int})
_DEEPEST = 6

_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "secret", "token", "authorization", "cookie", "credential", "credentials"}
    | {"apikey", "signature", "pin", "otp"}
)
_SECRET_ENDS = ("api_key", "private_key", "access_key", "secret_key", "client_key", "signing_key")
_CONTENT_WORDS = frozenset(
    {"answer", "arguments", "backstory", "body", "completion", "content", "contents", "description", "document"}
    | {"input", "message", "messages", "output", "parameters", "prompt", "prompts", "query", "question", "result"}
    | {"snippet", "summary", "system", "text", "texts", "title", "value"}
)
# What a secret looks like wherever it stands: in a header, in an address, as the keys of well-known services.
_SECRET_VALUE = re.compile(
    r"(?i:\b(?:bearer|basic)\s+[\w.~+/=-]{8,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|\b(?:sk|pk|rk|ghp|gho|xox[abps])[-_][\w-]{12,}"
)
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

_PLAIN, _CONTENT, _SECRET = "plain", "content", "secret"


@lru_cache(maxsize=4096)
def _kind_of(key: str) -> str:
    words = [word.lower() for word in _WORD.findall(key)]
    if _SECRET_WORDS.intersection(words) or "_".join(words).endswith(_SECRET_ENDS):
        return _SECRET
    return _CONTENT if words and words[-1] in _CONTENT_WORDS else _PLAIN


def redacted(data: Mapping[str, Any], *, keep_content: bool = False) -> dict[str, Any]:
    """*data* as it may be written down: JSON values, bounded in depth, number and length."""
    return {
        str(key): value if type(value) in _COUNTS else _shown(str(key), value, keep_content, 0)
        for key, value in islice(data.items(), _MOST_ITEMS)
    }


def redacted_text(text: str) -> str:
    """*text* without what looks like a secret, cut where it is long."""
    hidden = _SECRET_VALUE.sub(HIDDEN, text)
    return hidden if len(hidden) <= LONGEST_TEXT else f"{hidden[:LONGEST_TEXT]}[cut: {len(hidden)} characters]"


def _shown(key: str, value: Any, keep_content: bool, depth: int) -> Any:
    kind = _kind_of(key)
    if kind == _SECRET and not isinstance(value, bool | int | float | None):
        return HIDDEN
    if isinstance(value, str):
        if kind == _CONTENT and not keep_content:
            return f"[{len(value)} characters]"
        return redacted_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else repr(value)
    if depth >= _DEEPEST:
        return f"[{type(value).__name__}]"
    if isinstance(value, Mapping):
        items = list(value.items())[:_MOST_ITEMS]
        return {str(below): _shown(str(below), inner, keep_content, depth + 1) for below, inner in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(key, inner, keep_content, depth + 1) for inner in list(value)[:_MOST_ITEMS]]
    return f"[{type(value).__name__}]"
