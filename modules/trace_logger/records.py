"""What stands in the trace files: one JSON object a line, a span, an event or a log message each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from modules.core.errors import ValidationError
from modules.core.tracing import EventRecord, SpanContext, SpanRecord

from .redaction import LONGEST_TEXT, redacted, redacted_text

LEVELS = ("debug", "info", "warning", "error", "critical")

USER_ID, USER_HASH, SESSION_ID = "user.id", "user.hash", "session.id"
_NAMING = (USER_ID, "user_id", "owner_id")
Pseudonym = Callable[[str], str]


class StoredSpan(msgspec.Struct, frozen=True, tag_field="record", tag="span"):
    """``start_ns`` is of the epoch. ``source``: the process that it is from. ``error``: the kind of what went wrong."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    source: str
    start_ns: int
    duration_ns: int
    error: str | None = None
    attributes: dict[str, Any] = {}


class StoredEvent(msgspec.Struct, frozen=True, tag_field="record", tag="event"):
    trace_id: str
    span_id: str | None
    event: str
    event_id: str
    at: str
    source: str
    about: dict[str, Any] = {}


class StoredLog(msgspec.Struct, frozen=True, tag_field="record", tag="log"):
    trace_id: str | None
    span_id: str | None
    at: str
    level: str
    message: str
    data: dict[str, Any] = {}


Stored = StoredSpan | StoredEvent | StoredLog

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Stored] = msgspec.json.Decoder(Stored)
_span_decoder = msgspec.json.Decoder(StoredSpan)

# A span's own line begins so; what is no span need not be decoded to be passed over.
SPAN_MARK = b'{"record":"span"'


def line_of(record: Stored) -> bytes:
    return _encoder.encode(record) + b"\n"


def record_of(line: bytes) -> Stored | None:
    """None for a line that is no record: one that was damaged."""
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError:
        return None


def span_of(line: bytes) -> StoredSpan | None:
    """None for what is no span."""
    if not line.startswith(SPAN_MARK):
        return None
    try:
        return _span_decoder.decode(line)
    except msgspec.MsgspecError:
        return None


def stored_span(span: SpanRecord, source: str, pseudonym: Pseudonym) -> StoredSpan:
    return StoredSpan(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=span.name,
        kind=span.kind,
        source=source,
        start_ns=span.start_ns,
        duration_ns=span.duration_ns,
        error=span.error,
        attributes=_attributes(span.attributes, pseudonym),
    )


def stored_event(event: EventRecord, pseudonym: Pseudonym) -> StoredEvent:
    return StoredEvent(
        trace_id=event.trace_id,
        span_id=event.span_id,
        event=event.event,
        event_id=event.event_id,
        at=event.at,
        source=event.source,
        about=_about_user(dict(event.about), pseudonym),
    )


def stored_log(
    level: str,
    message: str,
    data: Mapping[str, Any] | None,
    span: SpanContext | None,
    at: str,
    pseudonym: Pseudonym,
    *,
    keep_content: bool,
) -> StoredLog:
    """Raises ValidationError for what is no log message."""
    if level not in LEVELS:
        raise ValidationError(f"level must be one of {', '.join(LEVELS)}; not {level!r}", param="level")
    if not isinstance(message, str) or not message:
        raise ValidationError("message must be text and not empty", param="message")
    if data is not None and not isinstance(data, Mapping):
        raise ValidationError("data must be a mapping", param="data")
    return StoredLog(
        trace_id=None if span is None else span.trace_id,
        span_id=None if span is None else span.span_id,
        at=at,
        level=level,
        message=redacted_text(message),
        data=_about_user(redacted(data or {}, keep_content=keep_content), pseudonym),
    )


def user_hash_of(record: Stored) -> str | None:
    """Whom a record is about, by their pseudonym; None where it names nobody."""
    if isinstance(record, StoredSpan):
        values = record.attributes
    else:
        values = record.about if isinstance(record, StoredEvent) else record.data
    found = values.get(USER_HASH)
    if found is None:  # of an object in an event: session.user_id.hash
        found = next((value for key, value in values.items() if key.endswith("user_id.hash")), None)
    return found if isinstance(found, str) else None


def _attributes(given: Mapping[str, Any], pseudonym: Pseudonym) -> dict[str, Any]:
    """Those of a span. Whose it is, which nearly every one says, is taken by itself: all others are looked through."""
    named = {}
    others = {}
    for name, value in given.items():
        if type(value) is not str or len(value) > LONGEST_TEXT:
            others[name] = value
        elif name == USER_ID:
            named[USER_HASH] = pseudonym(value)
        elif name == SESSION_ID:
            named[SESSION_ID] = value
        else:
            others[name] = value
    return named | _about_user(redacted(others), pseudonym) if others else named


def _about_user(values: dict[str, Any], pseudonym: Pseudonym) -> dict[str, Any]:
    """Users by their pseudonyms, wherever a key names one. Changes *values*, and gives them back."""
    named = [key for key, value in values.items() if key.endswith(_NAMING) or type(value) is dict]
    for key in named:
        value = values[key]
        if isinstance(value, dict):
            _about_user(value, pseudonym)
        elif isinstance(value, str):
            del values[key]
            values[USER_HASH if key in (USER_ID, "user_id") else f"{key}.hash"] = pseudonym(value)
    return values
