"""JSON texts as spans of bytes.

The migrated tree carries v2's values as the bytes they had, so values are compared as bytes and never by what a
decoder makes of them: ``1.0`` is not ``1.00`` here. The scanner is iterative, so depth costs no stack; the grammar
is RFC 8259 with the three number tokens that Python's encoder adds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property

DEEPEST = 1000
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_TOKEN = re.compile(
    rb'[ \t\r\n]*+(?:("[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+")'
    rb"|(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null|NaN|-?Infinity)"
    rb"|([{}\[\],:]))"
)
_STRING, _SCALAR, _MARK = 1, 2, 3


class NotAnObject(ValueError):
    """The text is not one JSON object; the message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object: its decoded key, its value as written, and where the key token stands."""

    key: str
    value: bytes
    key_start: int
    key_end: int


def members(text: bytes) -> list[Member]:
    """The members of the object that is the whole of *text*, in order, duplicates included.

    Raises `NotAnObject`.
    """
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise NotAnObject(f"not UTF-8 at byte {error.start}") from None
    found: list[Member] = []
    closers: list[bytes] = []  # what closes each open container
    expecting = "value"
    position = key_start = key_end = value_start = 0
    end = len(text)
    while True:
        token = _TOKEN.match(text, position)
        if token is None:
            break
        group = token.lastindex
        assert group is not None
        start, position = token.span(group)
        if group == _MARK:
            mark = text[start:position]
            if mark in b"{[":
                if expecting not in ("value", "value or end"):
                    break
                if not closers and mark == b"[":
                    raise NotAnObject("a list, not an object")
                if len(closers) == 1:
                    value_start = start
                closers.append(b"}" if mark == b"{" else b"]")
                if len(closers) > DEEPEST:
                    raise NotAnObject(f"nested more than {DEEPEST} deep")
                expecting = "key or end" if mark == b"{" else "value or end"
                continue
            if mark == b":":
                if expecting != "colon":
                    break
                expecting = "value"
                continue
            if mark == b",":
                if expecting != "comma or end" or not closers:
                    break
                expecting = "key" if closers[-1] == b"}" else "value"
                continue
            if not closers or closers[-1] != mark or not expecting.endswith("end"):
                break
            closers.pop()
        elif group == _STRING and expecting in ("key", "key or end"):
            if len(closers) == 1:
                key_start, key_end = start, position
            expecting = "colon"
            continue
        elif expecting in ("value", "value or end"):
            if not closers:
                raise NotAnObject("a single value, not an object")
            if len(closers) == 1:
                value_start = start
        else:
            break
        # a value has just ended
        expecting = "comma or end"
        if len(closers) == 1:
            found.append(Member(_key(text[key_start:key_end]), text[value_start:position], key_start, key_end))
        elif not closers:
            if text[position:].strip(_SPACE):
                raise NotAnObject(f"more text after the object at byte {position}")
            return found
    raise NotAnObject("nothing but space" if not text.strip(_SPACE) else f"broken near byte {min(position, end)}")


def _key(token: bytes) -> str:
    if b"\\" in token:
        decoded: str = json.loads(token)
        return decoded
    return token[1:-1].decode()


def last_values(found: list[Member]) -> dict[str, bytes]:
    """Values by key; of duplicates the last counts, as for every JSON reader that v2 used."""
    return {member.key: member.value for member in found}


def object_values(value: bytes | None) -> dict[str, bytes] | None:
    """The members of a value that is an object, else None."""
    if value is None or not value.startswith(b"{"):
        return None
    return last_values(members(value))


def list_items(value: bytes) -> list[bytes] | None:
    """The items, as written, of a value that is a list, else None."""
    if not value.startswith(b"["):
        return None
    items: list[bytes] = []
    depth, start, position = 0, 1, 0
    for token in _TOKEN.finditer(value):
        if token.lastindex != _MARK:
            continue
        mark = token[_MARK]
        position = token.start(_MARK)
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        if (mark == b"," and depth == 1) or depth == 0:
            item = value[start:position].strip(_SPACE)
            if item:
                items.append(item)
            start = position + 1
    return items


def string(value: bytes | None) -> str | None:
    """The text of a value that is a string, else None."""
    if value is None or not value.startswith(b'"'):
        return None
    decoded: str = json.loads(value)
    return decoded


def named(value: bytes | None) -> str | None:
    """The text of a value that is a non-empty string, else None."""
    return string(value) or None


def integer(value: bytes | None) -> int | None:
    """The number of a value that is an integer of reasonable length, else None."""
    if value is None or not re.fullmatch(rb"-?[0-9]{1,18}", value):
        return None
    return int(value)


@dataclass(frozen=True)
class ObjectFile:
    """A ``.json`` file of v2 that holds one object, as UTF-8 text."""

    text: bytes
    encoding: str

    @cached_property
    def members(self) -> list[Member]:
        return members(self.record)

    @cached_property
    def values(self) -> dict[str, bytes]:
        return last_values(self.members)

    @property
    def prefix(self) -> bytes:
        """What stands before the object: a byte order mark, white space."""
        body = self.text.removeprefix(_BOM)
        return self.text[: len(self.text) - len(body.lstrip(_SPACE))]

    @property
    def suffix(self) -> bytes:
        """What stands after the object: white space."""
        return self.text[len(self.text.rstrip(_SPACE)) :]

    @property
    def record(self) -> bytes:
        """The object, as written."""
        return self.text.removeprefix(_BOM).strip(_SPACE)


def object_file(data: bytes) -> ObjectFile | None:
    """*data* as a file with one object; as cp1252 where it is not UTF-8; None where it is no object."""
    encoding = "utf-8"
    try:
        data.decode()
    except UnicodeDecodeError:
        try:
            data, encoding = data.decode("cp1252").encode(), "cp1252"
        except UnicodeDecodeError:
            return None
    file = ObjectFile(data, encoding)
    try:
        file.members  # noqa: B018 - reading the members is the check
    except NotAnObject:
        return None
    return file
