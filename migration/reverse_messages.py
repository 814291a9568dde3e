"""Message files of v2 from those of the platform. Pure: bytes in, bytes out.

The lines that were there at the migration become what they were (`lines` run backwards, with what the migration kept
of the lines that this cannot restore). A file that the migration only renamed comes back by renaming, when that is
proved in the same way. What stands after those lines was written on the platform, and becomes lines as late v2 wrote
them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from migration.embed import value_json
from migration.lines import LineRules, decoded, restore_line
from migration.reverse_raw import NotJson, value_of
from modules.core.layout import derived_message_id

_KEYS = ("role", "content", "message_id", "timestamp", "attachments", "metadata")
OWN_PREFIX = "modchat_"
PANEL_KEYS = ("persona_id", "response_to", "consensus_level")


class _Renamed(msgspec.Struct, gc=False):
    id: str
    message_id: msgspec.UnsetType = msgspec.UNSET  # no value has this type: a record with one does not decode


class _Notes(msgspec.Struct, gc=False):
    """A message file's entry in ``legacy.exact`` (docs/target.md, section 4)."""

    lines: int | None = None
    own_id: list[int] | Literal["all"] = []
    without_id: list[int] | Literal["all"] = []
    blank: dict[str, str] = {}
    verbatim: dict[str, tuple[str, Literal["utf-8", "base64"]]] = {}
    no_final_newline: bool | list[int] = False


class _Row(msgspec.Struct, gc=False):
    """What is needed of a row of quarantine.jsonl."""

    line: int
    raw: str
    raw_encoding: Literal["utf-8", "base64"]
    salvaged_id: str | None


_decode_renamed = msgspec.json.Decoder(_Renamed).decode


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A line of v2 that did not parse; *salvaged*: a message was made of it, which stands in its place."""

    text: bytes
    salvaged: bool


@dataclass(frozen=True, slots=True)
class LineNotes:
    """What the migration kept of a message file besides its lines (``legacy.exact`` and quarantine.jsonl)."""

    lines: int | None = None
    own_id: Collection[int] | None = ()
    without_id: Collection[int] | None = ()
    blank: Mapping[str, str] = field(default_factory=dict)
    verbatim: Mapping[str, bytes] = field(default_factory=dict)
    open_ends: Collection[int] = ()
    quarantine: Mapping[int, QuarantineRow] = field(default_factory=dict)

    def has_own_id(self, number: int) -> bool:
        return self.own_id is None or number in self.own_id

    def has_no_id(self, number: int) -> bool:
        return self.without_id is None or number in self.without_id


def line_notes(exact: Mapping[str, bytes], quarantine: bytes) -> LineNotes:
    """The notes of a message file. Raises `NotJson` when they are damaged."""
    try:
        kept = msgspec.convert({key: value_of(raw) for key, raw in exact.items()}, _Notes)
        rows = [msgspec.convert(value_of(line), _Row) for line in quarantine.split(b"\n") if line]
        return LineNotes(
            lines=kept.lines,
            own_id=_numbers(kept.own_id),
            without_id=_numbers(kept.without_id),
            blank=kept.blank,
            verbatim={number: decoded(text, encoding) for number, (text, encoding) in kept.verbatim.items()},
            open_ends=_open_ends(kept),
            quarantine={
                row.line: QuarantineRow(decoded(row.raw, row.raw_encoding), row.salvaged_id is not None) for row in rows
            },
        )
    except (msgspec.ValidationError, ValueError) as error:
        raise NotJson(f"what was kept of the message lines is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class OldLines:
    """The lines of v2, each with a newline.

    *open_ends*: numbers of those that had none; *missing*: how many are not there; *changed*: how many were.
    """

    text: bytes
    open_ends: Collection[int] = ()
    missing: int = 0
    changed: int = 0


def split_at(text: bytes, messages: int) -> tuple[bytes, bytes]:
    """The first *messages* lines, and what was written after them."""
    if text.endswith(b"\n") and text.count(b"\n") == messages:
        return text, b""
    at = 0
    for _ in range(messages):
        end = text.find(b"\n", at)
        if end < 0:
            return text, b""
        at = end + 1
    return text[:at], text[at:]


def old_lines(text: bytes, messages: int, rules: LineRules, notes: LineNotes | None) -> OldLines:
    """The lines of v2 that *text*, the migrated ones, came from; *notes* is None when nothing was kept besides."""
    if notes is None and rules.source_timezone is None:
        plain = _renamed_back(text, messages)
        if plain is not None:
            return OldLines(plain)
    notes = notes or LineNotes()
    migrated = text.split(b"\n")
    if not migrated[-1]:
        migrated.pop()
    following = iter(migrated)
    restored: list[bytes] = []
    missing = changed = 0
    for number in range(1, (messages if notes.lines is None else notes.lines) + 1):
        key = str(number)
        if key in notes.blank:
            restored.append(notes.blank[key].encode())
            continue
        row = notes.quarantine.get(number)
        line = None if row is not None and not row.salvaged else next(following, None)
        if row is not None:
            restored.append(row.text)
        elif line is None:
            missing += 1
        elif key in notes.verbatim:
            restored.append(notes.verbatim[key])
        else:
            back = _restored(line, rules, notes, number)
            changed += back is None
            restored.append(new_line(line, rules, number).text if back is None else back)
    return OldLines(b"".join([line + b"\n" for line in restored]), notes.open_ends, missing, changed)


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line for v2, without its newline. *finding* is the kind of what is wrong with it, if anything is."""

    text: bytes
    timestamp: str = ""
    finding: str = ""
    detail: str = ""


def new_line(
    line: bytes, rules: LineRules, number: int, *, timestamp: str = "", top_level: Collection[str] = ()
) -> NewLine:
    """A message written on the platform as late v2 writes one.

    Keys that v2 does not know go into the metadata, as ``modchat_<key>``; those in *top_level* stay where they are.
    A line that is no message stays what it is: v2 passes over it, as the platform does. *number* (from 1) is its
    place, which names a message without an id; *timestamp* is that of one without a time.
    """
    try:
        record = value_of(line)
    except NotJson as error:
        return NewLine(line, finding="unreadable_message", detail=f"line {number}: {error}")
    if not isinstance(record, dict):
        return NewLine(line, finding="unreadable_message", detail=f"line {number} is no object")
    message = _message(record, derived_message_id(rules.user_id, rules.session_id, number), timestamp)
    message |= {key: record[key] for key in top_level if key in record}
    _keep_others(message["metadata"], record, {*_KEYS, "id", *top_level})
    text, stamp = value_json(message), message["timestamp"]
    if message["content"].strip():
        return NewLine(text, stamp)
    return NewLine(text, stamp, "message_empty", f"line {number}: {message['message_id']}")


def kept_metadata(record: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The metadata of a record made on the platform, with what v2 has no key for as ``modchat_<key>``."""
    own = record.get("metadata")
    metadata = dict(own) if isinstance(own, dict) else {}
    _keep_others(metadata, record, {*known, "metadata"} if isinstance(own, dict) or own is None else set(known))
    return metadata


def _message(record: Mapping[str, Any], derived_id: str, timestamp: str) -> dict[str, Any]:
    role, content, own_id = record.get("role"), record.get("content"), record.get("id")
    stamp, attachments = record.get("timestamp"), record.get("attachments")
    metadata = kept_metadata({key: record[key] for key in ("metadata",) if key in record}, ())
    paths = attachments if isinstance(attachments, list) else []
    if not all(isinstance(path, str) for path in paths) or not isinstance(attachments, list | None):
        metadata[_free(metadata, "attachments")] = attachments
    return {
        "role": role if isinstance(role, str) and role else "user",
        "content": content if isinstance(content, str) else "" if content is None else value_json(content).decode(),
        "message_id": own_id if isinstance(own_id, str) and own_id else derived_id,
        "timestamp": stamp if isinstance(stamp, str) and stamp else timestamp,
        "attachments": [path for path in map(_path_of, paths) if path],
        "metadata": metadata,
    }


def _path_of(attachment: object) -> str:
    """v2 lists attachments as text; the platform's objects say where theirs are."""
    if isinstance(attachment, dict):
        attachment = attachment.get("url") or attachment.get("id")
    return attachment if isinstance(attachment, str) else ""


def _keep_others(metadata: dict[str, Any], record: Mapping[str, Any], known: Collection[str]) -> None:
    for key, value in record.items():
        if key not in known:
            metadata[_free(metadata, key)] = value


def _free(metadata: Mapping[str, Any], key: str) -> str:
    name = OWN_PREFIX + key
    while name in metadata:
        name += "_"
    return name


def _restored(line: bytes, rules: LineRules, notes: LineNotes, number: int) -> bytes | None:
    """The line of v2; None for a line that the migration cannot have written, so it was changed since."""
    try:
        return restore_line(line, rules, own_id=notes.has_own_id(number), without_id=notes.has_no_id(number))
    except (ValueError, IndexError, StopIteration):
        return None


def _renamed_back(text: bytes, lines: int) -> bytes | None:
    """*text* with the key ``id`` renamed in each line, when it is proved that this is all there is to do, else None.

    Every line is an object with a string ``id`` and no ``message_id``; no key is spelled with escapes; and the token
    ``"id"`` occurs once a line in all, so that each is the key at the top level.
    """
    if b"\\u00" in text or not (text.endswith(b"\n") or not text):
        return None
    found = text.split(b"\n")
    found.pop()
    pieces = text.split(b'"id"')
    if len(found) != lines or len(pieces) != lines + 1:
        return None
    try:
        for line in found:
            _decode_renamed(line)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return b'"message_id"'.join(pieces)


def _open_ends(kept: _Notes) -> Collection[int]:
    """Numbers of the lines without a newline: the last one of all, or those where the files of the parts end."""
    if isinstance(kept.no_final_newline, list):
        return frozenset(kept.no_final_newline)
    return () if kept.lines is None or not kept.no_final_newline else (kept.lines,)


def _numbers(kept: list[int] | str) -> Collection[int] | None:
    """Line numbers as kept: a list, or "all" (None)."""
    return None if isinstance(kept, str) else frozenset(kept)
