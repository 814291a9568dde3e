"""JSON of the migrated tree taken apart into the bytes of its members.

What a migration embedded (``legacy.record`` and others) must come out as the bytes that went in. msgspec does that
for nearly every file; it refuses NaN, lone surrogates and what is nested too deep, and then `spans` finds the members.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from migration import spans
from migration.lines import MAX_DEPTH, Number, parse_object

_SPACE = b" \t\r\n"
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],]', re.DOTALL)

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class NotJson(ValueError):
    """The bytes are not the JSON that was expected; the text says why."""


def members(data: bytes) -> dict[str, bytes]:
    """The members of the object in *data*, each as its bytes; of a repeated key the last. Raises `NotJson`."""
    try:
        return {key: bytes(raw) for key, raw in _decode_members(data).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # the general way reads more, or says what is wrong
    if not (data.strip(_SPACE).startswith(b"{") and data.rstrip(_SPACE).endswith(b"}")):
        raise NotJson("not an object")
    if spans.depth_of(data) <= MAX_DEPTH:  # deeper is only what stands around a record of that depth
        found = parse_object(data)
        if isinstance(found, str):
            raise NotJson(found)
    return {m.key: data[m.value_start : m.value_end] for m in spans.members(data)}


def elements(data: bytes) -> list[bytes]:
    """The elements of the array in *data*, each as its bytes. Raises `NotJson`."""
    try:
        return [bytes(raw) for raw in _decode_elements(data)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # as above
    text = data.strip(_SPACE)
    if not (text.startswith(b"[") and text.endswith(b"]")):
        raise NotJson("not an array")
    found: list[bytes] = []
    depth, start = 0, 1
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        if depth == 0 or (depth == 1 and first == 0x2C):
            found.append(text[start : token.start()].strip(_SPACE))
            start = token.end()
    if depth:
        raise NotJson("the array does not end")
    return [] if found == [b""] else found


def value_of(raw: bytes | None) -> Any:
    """The value that *raw* spells, None for nothing; a number that Python cannot hold stays text.

    Raises `NotJson`.
    """
    if raw is None:
        return None
    try:
        return json.loads(raw, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error) or type(error).__name__) from error


def text_of(raw: bytes | None) -> str | None:
    """The string that *raw* spells; None when it spells anything else."""
    if raw is None or not raw.startswith(b'"'):
        return None
    value = value_of(raw)
    return value if isinstance(value, str) else None


def texts_of(raw: bytes) -> list[str]:
    """The strings in the array *raw*. Raises `NotJson` when it is anything else."""
    try:
        return msgspec.convert(value_of(raw), list[str])
    except msgspec.ValidationError as error:
        raise NotJson(str(error)) from error


def count_of(raw: bytes | None) -> int:
    """The whole number from 0 up that *raw* spells; 0 when it spells anything else."""
    return int(raw) if raw is not None and raw.isdigit() and len(raw) < 19 else 0


def _integer(digits: str) -> int | Number:
    return int(digits) if len(digits) <= 4000 else Number(digits)
