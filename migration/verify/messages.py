"""Lines of messages.jsonl and of quarantine.jsonl (docs/target.md, section 3).

The source's lines say what the target's lines must be. A line that only needed its key renamed must be equal to the
byte; a line that got something added is compared member by member, each member's value by its bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple
from zoneinfo import ZoneInfo

from migration.verify.comparison import Item
from migration.verify.jsontext import Member, NotAnObject, integer, last_values, members, named, string
from migration.verify.names import Name, derived_message_id
from migration.verify.timestamps import carries_offset, offset_at

_SPACE = b" \t\r\n\x0b\x0c"
_SHOWN_LINES = 20


class Line(NamedTuple):
    """A physical line of the source. *record* is None for a line that gave no message."""

    number: int
    running: int  # number when the lines of all parts are counted through
    offset: int
    raw: bytes
    record: tuple[Member, ...] | None = None
    text: bytes = b""
    reason: str = ""

    @property
    def blank(self) -> bool:
        return not self.raw.strip(_SPACE)

    @property
    def salvaged(self) -> bool:
        return self.record is not None and bool(self.reason)

    @property
    def ending(self) -> str:
        """What became of the line: one of message, salvaged, quarantined, blank."""
        if self.blank:
            return "blank"
        if self.record is None:
            return "quarantined"
        return "salvaged" if self.reason else "message"

    @property
    def values(self) -> dict[str, bytes]:
        """The record's values by key; none when there is no record."""
        return last_values(list(self.record or ()))


class Found(NamedTuple):
    """A line of the target."""

    raw: bytes
    values: dict[str, bytes]
    record: tuple[Member, ...]

    @property
    def id(self) -> str | None:
        return string(self.values.get("id"))


@dataclass(frozen=True, slots=True)
class Transcript:
    """The message lines of a session or panel, read from its source files in order."""

    lines: tuple[Line, ...]
    physical: int

    @property
    def messages(self) -> list[Line]:
        return [line for line in self.lines if line.record is not None]

    @property
    def quarantined(self) -> list[Line]:
        """Lines that get a row in quarantine.jsonl: broken ones and salvaged ones."""
        return [line for line in self.lines if line.reason]

    def count(self) -> Counter[str]:
        """How many lines ended as what."""
        return Counter(line.ending for line in self.lines)

    @property
    def keyed_by_id(self) -> bool:
        """Whether messages carry ``id``, as generations 1 and 2 wrote them."""
        return any(named(line.values.get("id")) for line in self.messages)


def transcript(parts: Sequence[bytes]) -> Transcript:
    """Reads the lines of all *parts*, which are files of v2 in the order in which their messages stand."""
    lines: list[Line] = []
    physical = 0
    for data in parts:
        lines += _lines(data, physical)
        physical += data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    return Transcript(tuple(lines), physical)


def _lines(data: bytes, before: int) -> Iterator[Line]:
    offset = 0
    raws = data.split(b"\n")
    if not raws[-1]:
        raws.pop()
    for number, raw in enumerate(raws, 1):
        line = Line(number, before + number, offset, raw)
        offset += len(raw) + 1
        if line.blank:
            yield line
            continue
        try:
            yield line._replace(record=tuple(members(raw)), text=raw)
        except NotAnObject as error:
            brace = raw.find(b"{")
            tail = raw[brace:]
            try:
                record = tuple(members(tail)) if brace > 0 else None
            except NotAnObject:
                record = None
            yield line._replace(record=record, text=b"" if record is None else tail, reason=str(error))


def found_lines(data: bytes) -> list[Found]:
    """The target's lines. Raises `NotAnObject` naming the first that is none."""
    found = []
    raws = data.split(b"\n")
    if not raws[-1]:
        raws.pop()
    for number, raw in enumerate(raws, 1):
        try:
            record = tuple(members(raw))
        except NotAnObject as error:
            raise NotAnObject(f"line {number}: {error}") from None
        found.append(Found(raw, last_values(list(record)), record))
    return found


class MessageRules:
    """What a message of one session must be in the target."""

    def __init__(self, user: Name, session: Name, zone: ZoneInfo | None) -> None:
        self._user = user
        self._session = session
        self._zone = zone

    def ids(self, line: Line) -> tuple[str, ...]:
        """The ids that the message of *line* may have; more than one only for lines of several parts."""
        values = line.values
        own = named(values.get("message_id")) or named(values.get("id"))
        if own is not None:
            return (own,)
        numbers = dict.fromkeys((line.number, line.running))
        return tuple(derived_message_id(self._user, self._session, number) for number in numbers)

    def canonical(self, line: Line) -> bytes:
        """The one form of a message that stands for it on both sides."""
        renamed = self._renamed(line)
        if renamed is not None:
            return renamed + b"\n"
        return line.text + b"\n" + self.ids(line)[0].encode("utf-8", "surrogatepass") + b"\n"

    def differences(self, line: Line, found: Found) -> list[tuple[str, bytes, bytes]]:
        """(what, expected, found) for everything in which *found* is not what *line* demands."""
        renamed = self._renamed(line)
        if renamed is not None and renamed == found.raw:
            return []
        added, old = self._added(line), line.values.get("id")
        wrong = self._members(line, found, added)
        if wrong and old is not None and named(old) is None:
            # an id that does not count may be kept as well
            wrong = self._members(line, found, {"legacy_id": old, **added}) and wrong
        if not wrong and renamed is not None and not self._should_move(line.values.get("timestamp")):
            return [("bytes", renamed, found.raw)]
        return wrong

    def _members(self, line: Line, found: Found, added: dict[str, bytes]) -> list[tuple[str, bytes, bytes]]:
        wrong: list[tuple[str, bytes, bytes]] = []
        values = line.values
        keys = [member.key for member in found.record]
        if found.id not in self.ids(line):
            wrong.append(("id", " or ".join(self.ids(line)).encode(), found.values.get("id", b"")))
        for key, value in values.items():
            if key in ("id", "message_id") or (key == "metadata" and added):
                continue
            got = found.values.get(key)
            if got != value and not (key == "timestamp" and self._in_zone(value, got)):
                wrong.append((key, value, got if got is not None else b""))
            elif key == "timestamp" and got == value and self._should_move(value):
                wrong.append((key, value + b" with the zone's offset", got))
        wrong += _metadata_differences(values.get("metadata"), found.values.get("metadata"), added)
        carried = dict.fromkeys(_renamed_keys(line, values))
        expected_keys = list(carried) + [k for k in ("metadata",) if added and k not in carried]
        expected_keys += [] if "id" in expected_keys else ["id"]
        plain_keys = [key for key in dict.fromkeys(keys) if key != "message_id"]
        # what is added comes last, in either order; everything else keeps its place
        if sorted(plain_keys) != sorted(expected_keys) or _without(plain_keys, carried) != list(carried):
            wrong.append(("keys", ",".join(expected_keys).encode(), ",".join(keys).encode()))
        return wrong

    def _renamed(self, line: Line) -> bytes | None:
        """The line with its one ``message_id`` renamed, when that is all that it needs."""
        keys = [member.key for member in line.record or ()]
        if line.salvaged or keys.count("message_id") != 1 or "id" in keys:
            return None
        member = next(member for member in line.record or () if member.key == "message_id")
        if named(member.value) is None:
            return None
        return line.text[: member.key_start] + b'"id"' + line.text[member.key_end :]

    def _added(self, line: Line) -> dict[str, bytes]:
        """Members that the message's metadata gets."""
        added: dict[str, bytes] = {}
        old = line.values.get("id")
        if old is not None and named(old) is not None:
            added["legacy_id"] = old
        if line.salvaged:
            added["legacy_salvaged"] = b"true"
        return added

    def _should_move(self, value: bytes | None) -> bool:
        stamp = string(value)
        return self._zone is not None and stamp is not None and offset_at(stamp, self._zone) is not None

    def _in_zone(self, value: bytes, got: bytes | None) -> bool:
        stamp, moved = string(value), string(got)
        if self._zone is None or stamp is None or moved is None:
            return False
        return carries_offset(moved, stamp, self._zone)


def _renamed_keys(line: Line, values: dict[str, bytes]) -> list[str]:
    """Keys of the source's record, in order, as they are called in the target."""
    if named(values.get("message_id")) is not None:
        keys = [member.key for member in line.record or () if member.key != "id"]
        return ["id" if key == "message_id" else key for key in keys]
    keys = [member.key for member in line.record or () if member.key != "message_id"]
    if named(values.get("id")) is None:
        keys = [key for key in keys if key != "id"]
    return keys


def _without(keys: list[str], carried: dict[str, None]) -> list[str]:
    return [key for key in keys if key in carried]


def _metadata_differences(
    source: bytes | None, target: bytes | None, added: dict[str, bytes]
) -> list[tuple[str, bytes, bytes]]:
    if not added:
        return []  # compared with the other members
    before = _object(source) or {}
    after = _object(target)
    if after is None:
        return [("metadata", ", ".join(added).encode(), target or b"")]
    wrong = [
        (f"metadata.{key}", value, after.get(key, b""))
        for key, value in added.items()
        # a string may be spelled anew, every other value is carried as it was written
        if after.get(key) != value and (string(value) is None or string(after.get(key)) != string(value))
    ]
    carried = {key: value for key, value in before.items() if key not in added}
    if source is not None and _object(source) is None and after.get("legacy_metadata") == source:
        carried["legacy_metadata"] = source  # metadata that was no object, moved aside
    wrong += [
        (f"metadata.{key}", value, after.get(key, b"")) for key, value in carried.items() if after.get(key) != value
    ]
    others = [key for key in after if key not in added]
    if others != list(carried):
        wrong.append(("members of metadata", ",".join(carried).encode(), ",".join(others).encode()))
    return wrong


def _object(value: bytes | None) -> dict[str, bytes] | None:
    return last_values(members(value)) if value is not None and value.startswith(b"{") else None


def compare_messages(
    item: Item, expected: Transcript, target: bytes | None, rules: MessageRules, recorded: int | None
) -> int:
    """Compares the target's message lines with what the source demands; returns how many are new.

    *recorded* is ``legacy.messages``: the lines that stood there when the migration was done. What stands after
    them was written on the new platform.
    """
    wanted = expected.messages
    item.same("legacy.messages", len(wanted), recorded)
    canonical = [rules.canonical(line) for line in wanted]
    digest = sha256(b"".join(canonical)).digest()
    try:
        lines = found_lines(target) if target is not None else []
    except NotAnObject as error:
        item.feed("messages", digest, target or b"")
        item.differs("messages.jsonl", f"{len(wanted)} messages", str(error))
        return 0
    if target is None:
        item.feed("messages", digest, b"")
        item.missing("messages.jsonl", f"{len(wanted)} messages")
        return 0
    migrated, new = lines[: len(wanted)], lines[len(wanted) :]
    ids = [rules.ids(line) for line in wanted]
    if len(migrated) == len(wanted) and all(found.id in own for own, found in zip(ids, migrated, strict=True)):
        got = _compare_in_place(item, wanted, migrated, rules, canonical)
    else:
        _misplaced(item, ids, [found.id for found in migrated])
        got = target
    item.feed("messages", digest, sha256(got).digest())
    known = {id_ for own in ids for id_ in own}
    twice = [found.id for found in new if found.id in known]
    for id_ in twice[:_SHOWN_LINES]:
        item.extra("a migrated message once more", id_)
    return len(new) - len(twice)


def _compare_in_place(
    item: Item, wanted: list[Line], migrated: list[Found], rules: MessageRules, canonical: list[bytes]
) -> bytes:
    """Compares lines that have the right ids in the right order; gives the target's canonical form."""
    form: list[bytes] = []
    wrong: list[tuple[str, bytes, bytes]] = []
    for number, (line, found) in enumerate(zip(wanted, migrated, strict=True), 1):
        differences = rules.differences(line, found)
        form.append(found.raw + b"\n" if differences else canonical[number - 1])
        wrong += [(f"message {number}, {what}", before, after) for what, before, after in differences]
    for what, before, after in wrong[:_SHOWN_LINES]:
        item.differs(what, before, after)
    if len(wrong) > _SHOWN_LINES:
        item.differs("further members of messages", 0, len(wrong) - _SHOWN_LINES)
    return b"".join(form)


def _misplaced(item: Item, wanted: list[tuple[str, ...]], found: list[str | None]) -> None:
    """Says how a list of message ids differs: count, missing ones, others, or only their order."""
    if len(wanted) != len(found):
        item.differs("messages counted", len(wanted), len(found))
    missing = Counter(ids[0] if not set(ids) & set(found) else None for ids in wanted)
    every = {id_ for ids in wanted for id_ in ids}
    others = Counter(id_ for id_ in found if id_ not in every)
    del missing[None]
    for id_ in list(missing)[:_SHOWN_LINES]:
        item.missing("message", id_)
    for other in list(others)[:_SHOWN_LINES]:
        item.extra("message", other)
    if not missing and not others:
        place = next(
            (n for n, (ids, id_) in enumerate(zip(wanted, found, strict=False), 1) if id_ not in ids),
            len(found) + 1,
        )
        item.differs("order of messages", wanted[place - 1][0] if place <= len(wanted) else None, place)


def compare_quarantine(
    item: Item, expected: Transcript, target: bytes | None, rules: MessageRules, *, appended: bool
) -> None:
    """Compares the rows of quarantine.jsonl. With *appended* messages further rows are the new platform's."""
    wanted = expected.quarantined
    rows: list[Found] = []
    try:
        rows = found_lines(target or b"")
    except NotAnObject as error:
        item.differs("quarantine.jsonl", f"{len(wanted)} rows", str(error))
    for line, row in zip(wanted, rows, strict=False):
        _compare_row(item, line, row.values, rules)
    for line in wanted[len(rows) :]:
        item.missing("row of quarantine.jsonl", f"line {line.number}")
        with item.quietly():
            _compare_row(item, line, {}, rules)
    for row in rows[len(wanted) :]:
        item.extra("row of quarantine.jsonl", row.values.get("line"), is_error=not appended)


def _compare_row(item: Item, line: Line, row: dict[str, bytes], rules: MessageRules) -> None:
    where = f"quarantine of line {line.number}, "
    item.same(where + "line", line.number, integer(row.get("line")), also=(line.running,))
    item.same(where + "offset", line.offset, integer(row.get("offset")))
    if named(row.get("reason")) is None:
        item.missing(where + "reason")
    try:
        encoding, raw = "utf-8", line.raw.decode()
    except UnicodeDecodeError:
        encoding, raw = "base64", b64encode(line.raw).decode()
    item.same(where + "raw_encoding", encoding, string(row.get("raw_encoding")))
    item.same(where + "raw", raw, string(row.get("raw")))
    ids: tuple[str | None, ...] = rules.ids(line) if line.record is not None else (None,)
    item.same(where + "salvaged_id", ids[0], string(row.get("salvaged_id")), also=ids)
