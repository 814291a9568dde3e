"""Where the members of a JSON object stand in its text, so that it can be edited without rewriting it.

A line that is migrated keeps its bytes; only a key is renamed or a member added. This scanner finds the byte ranges.
It expects text that a JSON parser has accepted, walks it without recursion (any depth), and decodes keys only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

# A string, or punctuation. Possessive, so that a string of megabytes costs no backtracking state.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:,]', re.DOTALL)
_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the outermost object: its key, and the byte ranges of key and value."""

    key: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int


def members(text: bytes) -> list[Member]:
    """The members of the object that *text* holds, in order, duplicates included.

    *text* must be one JSON object, with white space around it at most.
    """
    found: list[Member] = []
    depth = 0
    key: tuple[str, int, int] | None = None
    value_start = -1
    expects_key = False
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first == 0x22:  # a string
            if depth == 1 and expects_key:
                key = (_decode_key(token[0]), token.start(), token.end())
                expects_key = False
        elif first in b"{[":
            depth += 1
            if depth == 1:
                expects_key = True
        elif first in b"}]":
            depth -= 1
            if depth == 0 and key is not None:
                found.append(_member(text, key, value_start, token.start()))
        elif depth == 1:
            if first == 0x3A:  # a colon
                value_start = token.end()
            elif key is not None:  # a comma
                found.append(_member(text, key, value_start, token.start()))
                key, expects_key = None, True
    return found


def depth_of(text: bytes) -> int:
    """How deep arrays and objects are nested in *text*."""
    deepest = depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"}]":
            depth -= 1
    return deepest


def closing_brace(text: bytes) -> int:
    """Where the object's last brace stands."""
    return text.rindex(b"}")


def with_member(text: bytes, key: bytes, value: bytes) -> bytes:
    """*text* with ``"key": value`` added as its last member."""
    brace = closing_brace(text)
    inside = text[text.index(b"{") + 1 : brace].strip(_SPACE)
    separator = b", " if inside else b""
    return text[:brace] + separator + b'"' + key + b'": ' + value + text[brace:]


def without_last_member(text: bytes, last: Member) -> bytes:
    """*text* without its *last* member: the inverse of `with_member`."""
    brace = closing_brace(text)
    before = text[: last.key_start]
    if before.endswith(b", "):
        before = before[:-2]
    return before + text[brace:]


def _member(text: bytes, key: tuple[str, int, int], start: int, end: int) -> Member:
    while start < end and text[start] in _SPACE:
        start += 1
    while end > start and text[end - 1] in _SPACE:
        end -= 1
    return Member(key[0], key[1], key[2], start, end)


def _decode_key(token: bytes) -> str:
    if b"\\" not in token:
        return token[1:-1].decode()
    decoded: str = json.loads(token)
    return decoded
