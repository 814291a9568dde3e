"""Message lines of v2 to message lines of the platform, and back. Pure: bytes in, bytes out.

A migrated line keeps its bytes. Only the key ``message_id`` becomes ``id``; what is added (an id, ``legacy_id``,
``legacy_salvaged``, an offset) comes last. Nearly every line of a store written by v2's later generations needs the
renaming alone, and a whole file of such lines is proved to be so and renamed in one step:

  Every line ends with a newline and decodes, by itself, as an object with a string ``message_id`` and no ``id``. No
  key is spelled with escapes (``\\u00``), and the token ``"message_id"`` occurs once a line in all. As each object has
  the key at its top level at least once, each has the token exactly once, and it is that key. (Inside a string the
  quotes would be escaped, so the token cannot stand there.)

Everything else goes line by line through `spans`. There each result is run backwards, and a line that does not come
back to its bytes is kept verbatim beside, so `reverse` is exact whatever the line held.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import msgspec

from migration import spans
from migration.zones import offset_of
from modules.core.layout import derived_message_id

MAX_DEPTH = 1000
_MANY_BRACKETS = 400


class _Identified(msgspec.Struct, gc=False):
    message_id: str
    id: msgspec.UnsetType = msgspec.UNSET  # no value has this type: a record with an `id` does not decode


class _Stamped(msgspec.Struct, gc=False):
    message_id: str
    id: msgspec.UnsetType | msgspec.Raw = msgspec.UNSET
    timestamp: msgspec.UnsetType | str = msgspec.UNSET


_decode_identified = msgspec.json.Decoder(_Identified).decode
_decode_stamped = msgspec.json.Decoder(_Stamped).decode


@dataclass(frozen=True, slots=True)
class LineRules:
    """What the lines of one file need to know about where they stand."""

    user_id: str
    session_id: str
    source_timezone: str | None = None


@dataclass(slots=True)
class Conversation:
    """The message file of one session or panel, migrated block by block.

    Every physical line is counted in exactly one of `messages`, `salvaged`, `quarantined`, `blank`.
    """

    rules: LineRules
    lines: int = 0
    offset: int = 0
    messages: int = 0
    salvaged: int = 0
    quarantined: int = 0
    quarantine: list[bytes] = field(default_factory=list)
    blank: dict[str, str] = field(default_factory=dict)
    verbatim: dict[str, list[str]] = field(default_factory=dict)
    open_ends: list[int] = field(default_factory=list)  # numbers of the lines without a newline
    duplicate_ids: int = 0
    first: bytes | None = None
    last: bytes | None = None
    own_id_lines: list[int] = field(default_factory=list)
    without_id_lines: list[int] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    @property
    def ids(self) -> set[str]:
        return self._ids

    @property
    def written(self) -> int:
        """Lines of the migrated file."""
        return self.messages + self.salvaged

    def add(self, block: bytes) -> bytes:
        """Migrated text of the next *block*, which ends at a line's end or at the file's."""
        if not block:
            return b""
        migrated = self._add_plain(block)
        if migrated is None:
            migrated = b"".join(self._add_lines(block))
        self.offset += len(block)
        return migrated

    def exact(self) -> dict[str, Any] | None:
        """What the way back needs besides the migrated lines, or None when it needs nothing."""
        odd_ids = self.own_id_lines or self.without_id_lines
        if not (odd_ids or self.blank or self.verbatim or self.open_ends or self.quarantine):
            return None
        kept: dict[str, Any] = {"lines": self.lines}
        for key, numbers in (("own_id", self.own_id_lines), ("without_id", self.without_id_lines)):
            if numbers:
                kept[key] = "all" if len(numbers) == self.lines else numbers
        if self.blank:
            kept["blank"] = self.blank
        if self.verbatim:
            kept["verbatim"] = self.verbatim
        if self.open_ends:  # in the middle only where a session has several parts
            kept["no_final_newline"] = True if self.open_ends == [self.lines] else self.open_ends
        return kept

    def _add_plain(self, block: bytes) -> bytes | None:
        """The whole block by renaming, when that is proved to be right; None when it is not."""
        plain = None if self.rules.source_timezone is not None else plain_messages(block)
        if plain is None or not self._ids.isdisjoint(plain.ids):
            return None
        self._ids |= plain.ids
        self.lines += len(plain.ids)
        self.messages += len(plain.ids)
        first, _, _ = block.partition(b"\n")
        if self.first is None:
            self.first = first
        self.last = block[block.rfind(b"\n", 0, -1) + 1 : -1]
        return plain.text

    def _add_lines(self, block: bytes) -> Iterator[bytes]:
        lines = block.split(b"\n")
        tail = lines.pop()
        if tail:
            lines.append(tail)
            self.open_ends.append(self.lines + len(lines))
        offset = self.offset
        for raw in lines:
            self.lines += 1
            migrated = self._one_line(raw, offset)
            if migrated is not None:
                self.first = self.first or migrated
                self.last = migrated
                yield migrated + b"\n"
            offset += len(raw) + 1

    def _one_line(self, raw: bytes, offset: int) -> bytes | None:
        number = self.lines
        if not raw.strip():
            self.blank[str(number)] = raw.decode("ascii")
            return None
        if self.rules.source_timezone is not None:
            stamped = _stamp_plain(raw, self.rules.source_timezone)
            if stamped is not None:
                self.messages += 1
                self._note_id(stamped[1])
                return stamped[0]
        record = parse_object(raw)
        if isinstance(record, dict):
            line = migrate_line(raw, record, number, self.rules)
            if line.own_id:
                self.own_id_lines.append(number)
            if line.without_id:
                self.without_id_lines.append(number)
            back = restore_line(line.text, self.rules, own_id=line.own_id, without_id=line.without_id)
            if back != raw:
                self.verbatim[str(number)] = encoded(raw)
            self.messages += 1
            self._note_id(line.message_id)
            return line.text
        start = raw.find(b"{")
        inner = parse_object(raw[start:]) if start > 0 else record
        if isinstance(inner, dict):
            line = migrate_line(raw[start:], inner, number, self.rules, salvaged=True)
            self.salvaged += 1
            self._note_id(line.message_id)
            self.quarantine.append(_quarantine_row(number, offset, record, raw, line.message_id))
            return line.text
        self.quarantined += 1
        self.quarantine.append(_quarantine_row(number, offset, record, raw, None))
        return None

    def _note_id(self, message_id: str) -> None:
        if message_id in self._ids:
            self.duplicate_ids += 1
        self._ids.add(message_id)


@dataclass(slots=True)
class PlainMessages:
    """A block of messages that needed the renaming alone: its migrated text, and the ids, one a line."""

    text: bytes
    ids: set[str]


def plain_messages(block: bytes) -> PlainMessages | None:
    """*block* migrated by renaming, when it is proved that this is right (see the top of this file), else None."""
    if not (block.endswith(b"\n") and _is_plain_text(block)):
        return None
    pieces = block.split(b'"message_id"')
    lines = BytesIO(block).readlines()  # which knows no other line ends than line feeds
    if len(pieces) != len(lines) + 1:
        return None
    try:
        ids = {record.message_id for record in map(_decode_identified, lines)}
    except (msgspec.MsgspecError, RecursionError):
        return None
    if len(ids) != len(lines) or "" in ids:
        return None
    # Up to Python 3.11 the decoder goes no deeper than the interpreter, whose limit is that if nobody has raised it.
    is_deep_refused = sys.version_info < (3, 12) and sys.getrecursionlimit() <= MAX_DEPTH
    if not is_deep_refused and any(_brackets(line) > MAX_DEPTH for line in lines if len(line) >= 2 * MAX_DEPTH):
        return None
    return PlainMessages(b'"id"'.join(pieces), ids)


def parse_object(raw: bytes) -> dict[str, Any] | str:
    """The object in *raw*, or the reason why there is none. Numbers stay text: only the structure is of interest."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    deep = _brackets(raw) > _MANY_BRACKETS
    if deep and spans.depth_of(raw) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    try:
        with _room_for(MAX_DEPTH if deep else 0):
            value = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number)
    except ValueError as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else f"not an object but {_KIND.get(type(value), 'a number')}"


@dataclass(frozen=True, slots=True)
class MigratedLine:
    """A migrated message line without its newline."""

    text: bytes
    message_id: str
    own_id: bool = False  # the record's id was under the key `id`
    without_id: bool = False  # the record had no id


def migrate_line(
    text: bytes, record: dict[str, Any], number: int, rules: LineRules, *, salvaged: bool = False
) -> MigratedLine:
    """The migrated form of one object: *text*, which `parse_object` read as *record*."""
    legacy: dict[bytes, bytes] = {}
    message_id, own_id = record.get("message_id"), record.get("id")
    has_message_id = _is_id(message_id)
    has_own_id = not has_message_id and _is_id(own_id)
    if has_message_id:
        if "id" in record:
            text, legacy[b"legacy_id"] = _cut(text, "id")
        text = _rename(text, "message_id", b'"id"')
    elif has_own_id:
        message_id = own_id
        legacy[b"legacy_id"] = _value(text, "id")
    else:
        if "id" in record:
            text, legacy[b"legacy_id"] = _cut(text, "id")
        message_id = derived_message_id(rules.user_id, rules.session_id, number)
    if salvaged:
        legacy[b"legacy_salvaged"] = b"true"
    if legacy:
        text = _with_metadata(text, legacy)
    if rules.source_timezone is not None:
        text = _with_offset(text, rules.source_timezone)
    without_id = not (has_message_id or has_own_id)
    if without_id:
        text = spans.with_member(text, b"id", json.dumps(message_id).encode())
    return MigratedLine(text, str(message_id), has_own_id, without_id)


def restore_line(line: bytes, rules: LineRules, *, own_id: bool, without_id: bool) -> bytes:
    """The v2 line that *line* came from, by the rules run backwards; exact unless the line was kept verbatim."""
    if rules.source_timezone is not None:
        line = _without_offset(line, rules.source_timezone)
    if without_id:
        return spans.without_last_member(line, spans.members(line)[-1])
    if not own_id:
        return _rename(line, "id", b'"message_id"')
    found = spans.members(line)
    metadata = next(m for m in reversed(found) if m.key == "metadata")
    value = line[metadata.value_start : metadata.value_end]
    bare = spans.without_last_member(value, spans.members(value)[-1])
    return line[: metadata.value_start] + bare + line[metadata.value_end :]


def encoded(raw: bytes) -> list[str]:
    """*raw* as text that JSON can hold, and how: ``[text, "utf-8"]`` or ``[text, "base64"]``."""
    try:
        return [raw.decode("utf-8"), "utf-8"]
    except UnicodeDecodeError:
        return [base64.b64encode(raw).decode("ascii"), "base64"]


def decoded(text: str, encoding: str) -> bytes:
    """The bytes that `encoded` turned into text."""
    return text.encode("utf-8") if encoding == "utf-8" else base64.b64decode(text)


def timestamp_of(line: bytes | None) -> str | None:
    """The timestamp of a message line, when it has one that is a non-empty string."""
    if line is None:
        return None
    record = parse_object(line)
    stamp = record.get("timestamp") if isinstance(record, dict) else None
    return str(stamp) if _is_id(stamp) else None


_KIND = {list: "a list", str: "a string", bool: "a truth value", type(None): "null"}


def _brackets(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def _is_plain_text(block: bytes) -> bool:
    if b"\\" in block and b"\\u00" in block:
        return False
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class Number(str):
    """A JSON number, kept as its text so that none is too long or loses digits."""

    __slots__ = ()


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value != "" and not isinstance(value, Number)


def _stamp_plain(text: bytes, zone_name: str) -> tuple[bytes, str] | None:
    """Renaming and offset for a line of the usual form, when that is proved to be right."""
    if not _is_plain_text(text) or text.count(b'"message_id"') != 1 or text.count(b'"timestamp"') != 1:
        return None
    try:
        record = _decode_stamped(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    stamp = record.timestamp
    if record.id is not msgspec.UNSET or stamp is msgspec.UNSET or not record.message_id:
        return None
    value = b'"' + stamp.encode() + b'"'
    before, key, after = text.partition(b'"timestamp"')
    colon, quoted, rest = after.partition(value)
    if colon.strip() != b":" or not quoted:
        return None
    offset = offset_of(stamp, zone_name).encode()
    if not offset:  # with an offset already, or not a time: only the general way can tell how to come back
        return None
    stamped = before + key + colon + value[:-1] + offset + b'"' + rest
    return stamped.replace(b'"message_id"', b'"id"'), record.message_id


def _with_offset(text: bytes, zone_name: str) -> bytes:
    for member in reversed(spans.members(text)):
        if member.key == "timestamp":
            value = text[member.value_start : member.value_end]
            if value.startswith(b'"'):
                stamp = json.loads(value)
                offset = offset_of(stamp, zone_name).encode()
                return text[: member.value_end - 1] + offset + text[member.value_end - 1 :]
            break
    return text


def _without_offset(line: bytes, zone_name: str) -> bytes:
    for member in reversed(spans.members(line)):
        if member.key == "timestamp":
            value = line[member.value_start : member.value_end]
            if value.startswith(b'"'):
                stamp = json.loads(value)
                for length in (6, 9):  # +HH:MM and, for old zones, +HH:MM:SS
                    if len(stamp) > length and offset_of(stamp[:-length], zone_name) == stamp[-length:]:
                        return line[: member.value_end - 1 - length] + line[member.value_end - 1 :]
            break
    return line


def _value(text: bytes, key: str) -> bytes:
    """Bytes of the last value of *key*, the one that a parser keeps."""
    member = [m for m in spans.members(text) if m.key == key][-1]
    return text[member.value_start : member.value_end]


def _cut(text: bytes, key: str) -> tuple[bytes, bytes]:
    """*text* without its members called *key*, and the last one's value."""
    value = _value(text, key)
    while True:
        found = spans.members(text)
        at = next((i for i, m in enumerate(found) if m.key == key), None)
        if at is None:
            return text, value
        if at + 1 < len(found):
            text = text[: found[at].key_start] + text[found[at + 1].key_start :]
        else:
            start = found[at - 1].value_end if at else found[at].key_start
            text = text[:start] + text[found[at].value_end :]


def _rename(text: bytes, key: str, to: bytes) -> bytes:
    for member in reversed(spans.members(text)):
        if member.key == key:
            text = text[: member.key_start] + to + text[member.key_end :]
    return text


def _with_metadata(text: bytes, additions: dict[bytes, bytes]) -> bytes:
    """*text* with members added inside its ``metadata``; one that is no object is kept as ``legacy_metadata``."""
    member = next((m for m in reversed(spans.members(text)) if m.key == "metadata"), None)
    if member is None:
        return spans.with_member(text, b"metadata", _filled(b"{}", additions))
    value = text[member.value_start : member.value_end]
    if not value.startswith(b"{"):
        value = b"{}" if value == b"null" else b'{"legacy_metadata": ' + value + b"}"
    return text[: member.value_start] + _filled(value, additions) + text[member.value_end :]


def _filled(value: bytes, additions: dict[bytes, bytes]) -> bytes:
    for key, addition in additions.items():
        value = spans.with_member(value, key, addition)
    return value


def _quarantine_row(number: int, offset: int, reason: object, raw: bytes, salvaged_id: str | None) -> bytes:
    text, encoding = encoded(raw)
    row = {
        "line": number,
        "offset": offset,
        "reason": str(reason),
        "raw": text,
        "raw_encoding": encoding,
        "salvaged_id": salvaged_id,
    }
    # A lone surrogate can only come from an escape in the record, and becomes that escape again.
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


@contextmanager
def _room_for(levels: int) -> Iterator[None]:
    """A recursion limit that lets the parser nest that many levels whatever calls it."""
    if not levels:
        yield
        return
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 3 * levels)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
