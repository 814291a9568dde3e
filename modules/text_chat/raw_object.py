"""A JSON object whose members keep their bytes: what is not replaced is written back exactly as it was read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from .json_values import Unreadable, read_value

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,:\[\]{}\"]+")
_OPEN, _CLOSE = b"[{", b"]}"


class RawObject:
    """Members by name, in the order in which they stood, each as the bytes of its value."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = dict(members)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises Unreadable when *data* is no JSON object."""
        try:
            decoded = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError):
            return cls(_split(data))  # NaN or the like somewhere inside
        return cls({name: bytes(raw) for name, raw in decoded.items()})

    def get(self, name: str, default: Any = None) -> Any:
        """The decoded member; *default* when it is absent or cannot be read."""
        raw = self._members.get(name)
        if raw is None:
            return default
        try:
            return read_value(raw)[0]
        except Unreadable:
            return default

    def replaced(self, **changes: Any) -> Self:
        """The same object with some members given new values; new members come last."""
        encoded = {name: json.dumps(value, ensure_ascii=False).encode() for name, value in changes.items()}
        return type(self)(self._members | encoded)

    def to_bytes(self) -> bytes:
        members = (json.dumps(name, ensure_ascii=True).encode() + b": " + raw for name, raw in self._members.items())
        return b"{" + b", ".join(members) + b"}"


def _split(data: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    at = _expect(data, 0, b"{")
    while data[at : at + 1] != b"}":
        if members:
            at = _expect(data, at, b",")
        end = _value_end(data, at)
        name = read_value(data[at:end])[0]
        if not isinstance(name, str):
            raise Unreadable(f"a member's name is no string at byte {at}")
        at = _expect(data, _past_space(data, end), b":")
        end = _value_end(data, at)
        members[name] = data[at:end]
        at = _past_space(data, end)
    if _past_space(data, at + 1) != len(data):
        raise Unreadable(f"more than one value, at byte {at + 1}")
    return members


def _past_space(data: bytes, at: int) -> int:
    match = _SPACE.match(data, at)
    return match.end() if match else at


def _expect(data: bytes, at: int, token: bytes) -> int:
    at = _past_space(data, at)
    if data[at : at + 1] != token:
        raise Unreadable(f"expected {token.decode()} at byte {at}")
    return _past_space(data, at + 1)


def _value_end(data: bytes, at: int) -> int:
    """Where the value that begins at *at* ends. Counts brackets, so depth costs nothing."""
    depth = 0
    while at < len(data):
        byte = data[at : at + 1]
        if byte in (b",", b":", b" ", b"\t", b"\r", b"\n") and depth:
            at += 1
            continue
        if byte and byte in _OPEN:
            depth, at = depth + 1, at + 1
            continue
        if byte and byte in _CLOSE and depth:
            depth, at = depth - 1, at + 1
        else:
            match = (_STRING if byte == b'"' else _SCALAR).match(data, at)
            if match is None:
                raise Unreadable(f"no value at byte {at}")
            at = match.end()
        if not depth:
            return at
    raise Unreadable("the object does not end")
