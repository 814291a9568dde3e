"""JSON objects of v2 inside JSON files of the platform, as the bytes that they were.

Parsing and writing again would lose spelling (numbers, key order, white space). So an object's text is put into the
new file as it stands, and what stood around it or how it was encoded is noted where that matters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from migration import spans
from migration.lines import Number, parse_object

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One JSON object file of v2: its text as UTF-8, its members, and how to get the file's bytes back."""

    raw: bytes
    value: dict[str, Any]
    prefix: str = ""
    suffix: str = ""
    encoding: str = "utf-8"
    _members: dict[str, bytes] = field(default_factory=dict)

    def text(self, key: str) -> str | None:
        """The member's value, when it is a non-empty string."""
        value = self.value.get(key)
        return value if isinstance(value, str) and value and not isinstance(value, Number) else None

    def raw_of(self, key: str) -> bytes | None:
        """The bytes of the member's value; None when there is no such member."""
        if key not in self.value:
            return None
        if not self._members:
            self._members.update((m.key, self.raw[m.value_start : m.value_end]) for m in spans.members(self.raw))
        return self._members[key]

    def raw_object(self, key: str) -> bytes:
        """The bytes of the member's value when that is an object, else ``{}``."""
        return self.raw_if(key, dict, b"{}")

    def raw_if(self, key: str, kind: type, otherwise: bytes) -> bytes:
        """The bytes of the member's value when it is of that kind, else *otherwise*."""
        if not isinstance(self.value.get(key), kind):
            return otherwise
        return self.raw_of(key) or otherwise

    def plain(self) -> dict[str, Any]:
        """The object as Python values; an integer too long for Python stays text."""
        try:
            value: dict[str, Any] = json.loads(self.raw)
        except (ValueError, RecursionError):
            return self.value
        return value

    def exact(self) -> dict[str, str] | None:
        """What stood around the object and how the file was encoded; None for a plain UTF-8 file of just it."""
        kept = {"encoding": self.encoding} if self.encoding != "utf-8" else {}
        if self.prefix:
            kept["prefix"] = self.prefix
        if self.suffix:
            kept["suffix"] = self.suffix
        return kept or None


def source_object(data: bytes) -> SourceObject | str:
    """The object in a ``.json`` file of v2, or the reason why there is none.

    UTF-8 first, then cp1252 (what v2 wrote on a Windows host).
    """
    text, encoding = data, "utf-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        try:
            text, encoding = data.decode("cp1252").encode("utf-8"), "cp1252"
        except UnicodeDecodeError:
            return f"neither UTF-8 (byte {error.start}) nor cp1252"
    if encoding == "cp1252" and text.decode("utf-8").encode("cp1252") != data:
        return "not UTF-8, and cp1252 does not lead back to its bytes"
    bare = text.removeprefix(_BOM)
    raw = bare.strip(_SPACE)
    value = parse_object(raw)
    if isinstance(value, str):
        return value
    start = text.index(raw)
    return SourceObject(
        raw=raw,
        value=value,
        prefix=text[:start].decode(),
        suffix=text[start + len(raw) :].decode(),
        encoding=encoding,
    )


def source_bytes(raw: bytes, exact: dict[str, Any] | None) -> bytes:
    """The file that an embedded object came from: the inverse of `source_object`."""
    if not exact:
        return raw
    text: str = exact.get("prefix", "") + raw.decode() + exact.get("suffix", "")
    return text.encode(exact.get("encoding", "utf-8"))


def text_json(text: str) -> bytes:
    """A string as JSON, UTF-8; a lone surrogate becomes its escape."""
    try:
        return bytes(msgspec.json.encode(text))
    except UnicodeEncodeError:
        return json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace")


def value_json(value: object) -> bytes:
    """A value of our own making as JSON on one line, UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def object_json(pairs: Iterable[tuple[str, bytes]], *, indent: bool = True) -> bytes:
    """A JSON object of keys and values that are JSON already; a file of it ends with a newline."""
    if not indent:
        return b"{" + b", ".join(b'"%b": %b' % (key.encode(), value) for key, value in pairs) + b"}"
    return b"{\n" + b",\n".join(b'  "%b": %b' % (key.encode(), value) for key, value in pairs) + b"\n}\n"


def display_name(name: str | bytes) -> str:
    """A v2 file or directory name as text: bytes that are not UTF-8 become ``%XX``."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    if text.isascii():
        return text
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
