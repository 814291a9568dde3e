"""What v2's records become: pure functions from source objects to the bytes of the platform's files.

The layouts are those of docs/target.md, section 3. A value of v2 is embedded as its bytes (`embed`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from migration.embed import SourceObject, object_json, text_json, value_json
from migration.lines import MAX_DEPTH, LineRules, migrate_line, parse_object
from migration.zones import offset_of

Pairs = list[tuple[str, bytes]]

_TYPE_BY_PREFIX = (("panel_", "panel"), ("debate_", "debate"), ("problem_solving_", "problem_solving"))
_V2_SESSION = re.compile(r"(chat|panel|debate|problem_solving)_session_\d{8}_\d{6}(_\d{6})?")
_PERSONA_USER = "persona_"


# ---- sessions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One v2 directory that a session comes from; usually the only one."""

    path: str
    record: SourceObject | None
    files: tuple[str, ...] = ()
    lines: int = 0


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What is known of a session when its metadata is written. new_messages: how many the platform has added;
    new_side: members of metadata.json that it has changed, as JSON."""

    user_id: str
    session_id: str
    parts: Sequence[Part]
    generation: str
    messages: int
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    mtime_ns: int = 0
    shared_conversation: str | None = None
    split_with: Sequence[str] = ()
    exact: Mapping[str, Any] = field(default_factory=dict)
    archived_at: str | None = None
    source_timezone: str | None = None
    new_messages: int = 0
    new_side: Mapping[str, bytes] = field(default_factory=dict)


class _PlainSession(msgspec.Struct, gc=False):
    """A session.json as v2 writes it; anything else takes the general way."""

    user_id: str
    session_id: str
    title: str
    created_at: str
    updated_at: str
    metadata: msgspec.Raw
    message_count: int
    session_type: str | msgspec.UnsetType = msgspec.UNSET
    id: msgspec.UnsetType | msgspec.Raw = msgspec.UNSET


_decode_plain_session = msgspec.json.Decoder(_PlainSession).decode
_PLAIN_METADATA = (
    b'{\n  "id": %b,\n  "user_id": %b,\n  "title": %b,\n  "created_at": %b,\n  "updated_at": %b,\n  "metadata": %b,\n'
    b'  "session_type": %b,\n  "message_count": %d,\n  "active": true,\n'
    b'  "legacy": {"generation": "%b", "path": %b, "record": %b, "messages": %d}\n}\n'
)


def _may_be_too_deep(raw: bytes) -> bool:
    """Whether only the general way can say that *raw* nests no deeper than is read."""
    return len(raw) > 2 * MAX_DEPTH and raw.count(b"{") + raw.count(b"[") > MAX_DEPTH


def plain_session(raw: bytes) -> _PlainSession | None:
    """*raw* as v2 itself writes a session.json, or None when it is anything else."""
    if not (raw.startswith(b"{") and raw.endswith(b"}")):
        return None
    if _may_be_too_deep(raw):
        return None
    try:
        if not raw.isascii():
            raw.decode("utf-8")
        record = _decode_plain_session(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    plain = record.user_id and record.title and record.created_at and record.updated_at and record.session_type != ""
    return record if plain and record.id is msgspec.UNSET and bytes(record.metadata).startswith(b"{") else None


def plain_session_metadata(record: _PlainSession, raw: bytes, session_id: str, path: str, messages: int) -> bytes:
    """metadata.json of a session whose session.json is plain: the same bytes as `session_metadata` would give."""
    encode = msgspec.json.encode
    generation, kind = b"G6", record.session_type
    if kind is msgspec.UNSET:
        generation, kind = b"G3", "chat" if session_id.startswith("chat_") else session_type_of(None, session_id)
    return _PLAIN_METADATA % (
        encode(session_id),
        encode(record.user_id),
        encode(record.title),
        encode(record.created_at),
        encode(record.updated_at),
        record.metadata,
        encode(kind),
        messages,
        generation,
        encode(path),
        raw,
        messages,
    )


def session_metadata(facts: SessionFacts) -> bytes:
    """metadata.json of a live or archived session."""
    record = newest(facts.parts)
    stamps, inferred = times_of(facts, record)
    pairs: Pairs = [
        ("id", text_json(facts.session_id)),
        ("user_id", text_json(facts.user_id)),
        ("title", text_json(title_of(record))),
        *stamps,
        ("metadata", record.raw_object("metadata") if record else b"{}"),
        ("session_type", text_json(session_type_of(record, facts.session_id))),
        ("message_count", b"%d" % (facts.messages + facts.new_messages)),
        ("active", b"false" if facts.archived_at else b"true"),
    ]
    if facts.new_side:
        own = dict(facts.new_side)
        pairs = [(name, own.pop(name, value)) for name, value in pairs] + list(own.items())
    if facts.archived_at:
        pairs.append(("archived_at", text_json(facts.archived_at)))
    pairs.append(("legacy", _session_legacy(facts, record, inferred)))
    return object_json(pairs)


def _session_legacy(facts: SessionFacts, record: SourceObject | None, inferred: list[str]) -> bytes:
    legacy: Pairs = [
        ("generation", text_json(facts.generation)),
        ("path", text_json(facts.parts[0].path)),
        ("record", record.raw if record else b"null"),
        ("messages", b"%d" % facts.messages),
    ]
    if inferred:
        legacy.append(("inferred", value_json(inferred)))
    if facts.shared_conversation is not None:
        legacy.append(("shared_conversation", text_json(facts.shared_conversation)))
    if facts.split_with:
        others = list(facts.split_with)
        legacy.append(("split_with", value_json(others[0] if len(others) == 1 else others)))
    if len(facts.parts) > 1:
        legacy.append(("parts", b"[" + b", ".join(_part_json(part) for part in facts.parts) + b"]"))
    if facts.exact:
        legacy.append(("exact", exact_json(facts.exact)))
    return object_json(legacy, indent=False)


def _part_json(part: Part) -> bytes:
    return object_json(
        [
            ("path", text_json(part.path)),
            ("record", part.record.raw if part.record else b"null"),
            ("files", value_json(list(part.files))),
            ("lines", b"%d" % part.lines),
        ],
        indent=False,
    )


def exact_json(exact: Mapping[str, Any]) -> bytes:
    """`legacy.exact`: {source file: what the way back needs}; a `record` in it is embedded as bytes."""
    files: Pairs = []
    for name, kept in exact.items():
        members = [(key, value if isinstance(value, bytes) else value_json(value)) for key, value in kept.items()]
        files.append((name, object_json(members, indent=False)))
    return b"{" + b", ".join(text_json(name) + b": " + value for name, value in files) + b"}"


def newest(parts: Sequence[Part]) -> SourceObject | None:
    """The record with the latest ``updated_at``; of equals the first."""
    records = [part.record for part in parts if part.record is not None]
    return max(records, key=lambda record: record.text("updated_at") or "") if records else None


def title_of(record: SourceObject | None) -> str:
    """``title``, else ``session_name``, else "Untitled"."""
    return (record and (record.text("title") or record.text("session_name"))) or "Untitled"


def session_type_of(record: SourceObject | None, session_id: str) -> str:
    """As given, else by the id's prefix, else ``chat``."""
    given = record.text("session_type") if record else None
    return given or next((kind for prefix, kind in _TYPE_BY_PREFIX if session_id.startswith(prefix)), "chat")


def session_generation(record: SourceObject | None, session_id: str, *, under_users: bool, own_ids: bool | None) -> str:
    """The writer of a session, by its files: G1, G2, G3 (to G5), G6 or external.

    *own_ids*: whether its messages carry ``id``; None when there are none.
    """
    if not under_users:
        return "G1"
    if record is None:
        if not _V2_SESSION.fullmatch(session_id):
            return "G2" if own_ids else "external"
        return "G2" if own_ids else "G3"
    if "session_type" in record.value:
        return "G6"
    return "G2" if "id" in record.value and "session_id" not in record.value else "G3"


def shared_conversation(user_id: str, session_id: str) -> str | None:
    """The common id of a conversation that v2 stored once per persona, for one of those transcripts."""
    prefix = f"{user_id}_"
    if user_id.startswith(_PERSONA_USER) and session_id.startswith(prefix) and len(session_id) > len(prefix):
        return session_id[len(prefix) :]
    return None


def times_of(facts: SessionFacts, record: SourceObject | None) -> tuple[Pairs, list[str]]:
    inferred: list[str] = []
    pairs: Pairs = []
    for key, message_time in (("created_at", facts.first_timestamp), ("updated_at", facts.last_timestamp)):
        stamp = record.text(key) if record else None
        if stamp is None:
            inferred.append(key)
            stamp = message_time
            if stamp is None:
                stamp = iso_of(facts.mtime_ns)
        elif facts.source_timezone:
            stamp += offset_of(stamp, facts.source_timezone)
        pairs.append((key, text_json(stamp)))
    return pairs, inferred


def iso_of(mtime_ns: int) -> str:
    """A file's time as UTC, ISO 8601 with microseconds and offset; one beyond the calendar becomes its nearest end."""
    seconds, rest = divmod(mtime_ns, 1_000_000_000)
    try:
        time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError, OSError):
        time = datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)
    return time.isoformat(timespec="microseconds")


def archived_at(stamp: str) -> str:
    """``YYYYMMDD_HHMMSS`` of a backup's name as ISO 8601; the stamp itself when it is no time."""
    try:
        return datetime.strptime(stamp, "%Y%m%d_%H%M%S").isoformat()  # noqa: DTZ007 - v2's stamps are naive
    except ValueError:
        return stamp


# ---- users -----------------------------------------------------------------------------------------------------------


def profile(
    user_id: str,
    record: SourceObject,
    *,
    generation: str,
    path: str,
    mtime_ns: int,
    source_timezone: str | None,
    others: Sequence[tuple[str, SourceObject]] = (),
) -> bytes:
    """profile.json of a user; *others* are further profiles that claim the same user, kept in `legacy`."""
    facts = SessionFacts(
        user_id, "", (Part(path, record),), generation, 0, mtime_ns=mtime_ns, source_timezone=source_timezone
    )
    stamps, inferred = times_of(facts, record)
    legacy: Pairs = [("generation", text_json(generation)), ("path", text_json(path)), ("record", record.raw)]
    if inferred:
        legacy.append(("inferred", value_json(inferred)))
    if others:
        rows = [object_json([("path", text_json(p)), ("record", r.raw)], indent=False) for p, r in others]
        legacy.append(("others", b"[" + b", ".join(rows) + b"]"))
    exact = {p.rsplit("/", 1)[-1] if p == path else p: r.exact() for p, r in ((path, record), *others)}
    needed = {name: kept for name, kept in exact.items() if kept}
    if needed:
        legacy.append(("exact", exact_json(needed)))
    pairs: Pairs = [
        ("user_id", text_json(user_id)),
        ("username", text_json(record.text("username") or "")),
        *stamps,
        ("preferences", record.raw_object("preferences")),
        ("metadata", record.raw_object("metadata")),
        ("legacy", object_json(legacy, indent=False)),
    ]
    return object_json(pairs)


class _PlainProfile(msgspec.Struct, gc=False):
    """A profile.json as v2 writes it."""

    user_id: str
    username: str
    created_at: str
    updated_at: str
    preferences: msgspec.Raw
    metadata: msgspec.Raw


_decode_plain_profile = msgspec.json.Decoder(_PlainProfile).decode
_PLAIN_PROFILE = (
    b'{\n  "user_id": %b,\n  "username": %b,\n  "created_at": %b,\n  "updated_at": %b,\n  "preferences": %b,\n'
    b'  "metadata": %b,\n  "legacy": {"generation": "G2", "path": %b, "record": %b}\n}\n'
)


def plain_profile(raw: bytes, user_id: str, path: str) -> bytes | None:
    """profile.json for a record of that user as v2 itself writes it, the same bytes as `profile` would give; else None.

    For users below a users directory, without a source time zone.
    """
    if not (raw.startswith(b"{") and raw.endswith(b"}") and raw.isascii()) or _may_be_too_deep(raw):
        return None
    try:
        record = _decode_plain_profile(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    objects = bytes(record.preferences).startswith(b"{") and bytes(record.metadata).startswith(b"{")
    if record.user_id != user_id or not (record.created_at and record.updated_at and objects):
        return None
    encode = msgspec.json.encode
    return _PLAIN_PROFILE % (
        encode(record.user_id),
        encode(record.username),
        encode(record.created_at),
        encode(record.updated_at),
        record.preferences,
        record.metadata,
        encode(path),
        raw,
    )


# ---- record by record ------------------------------------------------------------------------------------------------


class SchemaTransformer:
    """The mapping of single records, for callers that hold them as Python objects.

    The migration itself works on bytes (`lines`); this goes through the same rules.
    """

    def transform_message(
        self, old_message: Mapping[str, Any], *, user_id: str = "", session_id: str = "", line: int = 1
    ) -> dict[str, Any]:
        """A v2 message of any generation as a message of the platform; `ValueError` when it cannot be JSON."""
        text = _as_json(old_message)
        record = parse_object(text)
        if isinstance(record, str):
            raise ValueError(f"not a message: {record}")
        migrated: dict[str, Any] = json.loads(migrate_line(text, record, line, LineRules(user_id, session_id)).text)
        return migrated

    def transform_session(self, old_session: Mapping[str, Any], *, session_id: str, user_id: str) -> dict[str, Any]:
        """A v2 session record as metadata of the platform (message_count 0: messages are counted where they are);
        `ValueError` when it cannot be JSON."""
        text = _as_json(old_session)
        value = parse_object(text)
        if isinstance(value, str):
            raise ValueError(f"not a session: {value}")
        record = SourceObject(text, value)
        facts = SessionFacts(
            user_id=record.text("user_id") or user_id,
            session_id=session_id,
            parts=(Part(session_id, record),),
            generation=session_generation(record, session_id, under_users=True, own_ids=None),
            messages=0,
        )
        migrated: dict[str, Any] = json.loads(session_metadata(facts))
        return migrated


def _as_json(record: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"cannot be JSON: {error}") from error
