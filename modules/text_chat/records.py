"""Stored lines and documents, and the values that they mean. Pure; reading never fails.

A line that was migrated may lack fields, or hold others than this platform writes. Each is read as the message that
it comes nearest to, and what did not fit stays in `Message.extra`. A line that is no JSON object at all becomes a
message with status ``unreadable``, so that positions and counts stay those of the file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import ValidationError
from modules.core.layout import derived_message_id
from modules.core.types import ATTACHMENT_TYPES, MESSAGE_STATUSES, ROLES, Attachment, Message, Session

from .json_values import Unreadable, read_value
from .raw_object import RawObject

IDEMPOTENCY_KEY = "idempotency_key"

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

# Spellings of other systems. Any other role reads as "user": to take a stranger's words for the assistant's own
# would be the worse mistake.
_ROLE_SPELLINGS = {"human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant", "function": "tool"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of messages.jsonl without its newline, and the byte at which it begins."""

    offset: int
    data: bytes


def message_of(line: Line, user_id: str, session_id: str) -> Message:
    """The message that a stored line means. Never fails."""
    try:
        record, made_plain = read_value(line.data)
    except Unreadable as error:
        return _unreadable(line, user_id, session_id, str(error))
    if not isinstance(record, dict):
        return _unreadable(line, user_id, session_id, "not an object")
    extra = {name: value for name, value in record.items() if name not in _READERS}
    if made_plain:
        extra["raw"] = line.data.decode()
    fields: dict[str, Any] = {}
    for name, read in _READERS.items():
        if name in record:
            fields[name], taken_as_it_stood = read(record[name])
            if not taken_as_it_stood:
                extra[name] = record[name]
    message_id = fields.pop("id", None) or _id_of_place(line, user_id, session_id)
    defaults = {"role": "user", "content": ""}
    return Message(id=message_id, session_id=session_id, extra=extra, **(defaults | fields))


def line_of(message: Message) -> bytes:
    """The line, with its newline, that stores a message made here.

    Raises ValidationError when the message holds what JSON in UTF-8 cannot: NaN, lone surrogates, other objects.
    """
    record: dict[str, Any] = {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        "timestamp": message.timestamp,
        "attachments": [attachment.to_dict() for attachment in message.attachments],
        "metadata": dict(message.metadata),
    }
    if message.status != "complete":
        record["status"] = message.status
    if message.tokens is not None:
        record["tokens"] = message.tokens
    if message.parent_id is not None:
        record["parent_id"] = message.parent_id
    return to_json(record, "message") + b"\n"


def to_json(value: Any, param: str) -> bytes:
    """*value* as strict JSON in UTF-8. Raises ValidationError naming *param* where that cannot be."""
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"{param} cannot be stored as JSON: {error}", param=param) from error


def session_of(document: RawObject, user_id: str, session_id: str) -> Session:
    """The session that a metadata.json describes; *user_id* and *session_id* are those of its place."""
    count = document.get("message_count")
    metadata = document.get("metadata")
    title, session_type = document.get("title"), document.get("session_type")
    created_at, updated_at = document.get("created_at"), document.get("updated_at")
    return Session(
        id=session_id,
        user_id=user_id,
        title=title if _is_name(title) else "Untitled",
        created_at=created_at if isinstance(created_at, str) else "",
        updated_at=updated_at if isinstance(updated_at, str) else "",
        metadata=metadata if isinstance(metadata, dict) else {},
        session_type=session_type if _is_name(session_type) else "chat",
        active=document.get("active") is not False,
        message_count=count if isinstance(count, int) and count >= 0 else 0,
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _id_of_place(line: Line, user_id: str, session_id: str) -> str:
    # The log is append-only, so the place of a line is as good a name as any, and the same at every reading.
    return derived_message_id(user_id, f"{session_id}\0offset", line.offset)


def _unreadable(line: Line, user_id: str, session_id: str, reason: str) -> Message:
    extra = {"reason": reason}
    try:
        content = line.data.decode("utf-8")
    except UnicodeDecodeError:
        content = line.data.decode("utf-8", "replace")
        extra["raw_base64"] = base64.b64encode(line.data).decode()
    message_id = _id_of_place(line, user_id, session_id)
    return Message(message_id, session_id, "user", content, status="unreadable", extra=extra)


# Readers of fields: each gives a value of the right type, and whether the stored one was taken as it stood.
Read = tuple[Any, bool]


def _read_name(value: object) -> Read:
    return (value, True) if _is_name(value) else (None, value is None)


def _read_role(value: object) -> Read:
    if not isinstance(value, str):
        return "user", False
    role = _ROLE_SPELLINGS.get(value.lower(), value.lower())
    return (role if role in ROLES else "user"), value in ROLES


def _read_text(value: object) -> Read:
    if isinstance(value, str):
        return value, True
    return ("" if value is None else json.dumps(value, ensure_ascii=False)), False


def _read_metadata(value: object) -> Read:
    return (value, True) if isinstance(value, dict) else ({}, False)


def _read_status(value: object) -> Read:
    return (value, True) if isinstance(value, str) and value in MESSAGE_STATUSES else ("complete", False)


def _read_tokens(value: object) -> Read:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, True
    return None, value is None


def _read_attachments(value: object) -> Read:
    """v2 stored paths, this platform stores objects."""
    if not isinstance(value, list):
        return (), False
    found = [_attachment(item) for item in value]
    return tuple(one for one in found if one is not None), None not in found


_READERS: dict[str, Callable[[object], Read]] = {
    "id": _read_name,
    "role": _read_role,
    "content": _read_text,
    "timestamp": _read_text,
    "metadata": _read_metadata,
    "attachments": _read_attachments,
    "status": _read_status,
    "tokens": _read_tokens,
    "parent_id": _read_name,
}


def _attachment(item: object) -> Attachment | None:
    if isinstance(item, str) and item:
        return Attachment(id=item, url=item)
    if not isinstance(item, Mapping):
        return None
    kind, metadata = item.get("type", "document"), item.get("metadata", {})
    known = {"id", "type", "url", "size_bytes", "metadata"}
    fits = kind in ATTACHMENT_TYPES if isinstance(kind, str) else False
    if not fits or not isinstance(metadata, Mapping) or not set(item) <= known:
        return None
    try:
        return Attachment(item.get("id", ""), kind, item.get("url", ""), item.get("size_bytes", 0), metadata)
    except ValidationError:
        return None
