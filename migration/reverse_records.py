"""Records of v2 for what was made or changed on the platform. Pure.

Written as v2 writes its JSON: sorted keys, two spaces, not escaped, no final newline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from migration.embed import source_object
from migration.reverse_messages import OWN_PREFIX, kept_metadata
from migration.reverse_raw import NotJson, text_of, value_of
from migration.transform import session_type_of, title_of
from modules.core.clock import moment_of

_SESSION_KEYS = {"id", "user_id", "title", "created_at", "updated_at", "session_type", "message_count"}
_PROFILE_KEYS = {"user_id", "username", "created_at", "updated_at", "preferences"}


def v2_json(value: object) -> bytes:
    """*value* as v2 writes a JSON file; a lone surrogate becomes its escape."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Activity:
    """What was written to a session on the platform: how many messages, the last one's time, and how many in all."""

    new_messages: int = 0
    last_timestamp: str = ""
    messages: int = 0


def new_session(metadata: Mapping[str, bytes], user_id: str, session_id: str, activity: Activity) -> bytes:
    """session.json (G6) of a session made on the platform. Raises `NotJson`."""
    record = {key: value_of(raw) for key, raw in metadata.items() if key not in {"legacy", "active"}}
    if metadata.get("active") == b"false":
        record["active"] = False
    updated = text_of(metadata.get("updated_at")) or ""
    created = text_of(metadata.get("created_at")) or updated or activity.last_timestamp
    return v2_json(
        {
            "session_id": session_id,
            "user_id": user_id,
            "title": text_of(metadata.get("title")) or "Untitled",
            "created_at": created,
            "updated_at": later(updated or created, activity.last_timestamp),
            "message_count": activity.messages,
            "metadata": kept_metadata(record, _SESSION_KEYS),
            "session_type": text_of(metadata.get("session_type")) or session_type_of(None, session_id),
        }
    )


def session_changes(metadata: Mapping[str, bytes], record: bytes | None, activity: Activity) -> dict[str, Any]:
    """What session.json must say anew of a migrated session: nothing when nobody has touched it. Raises `NotJson`."""
    found = source_object(record) if record is not None else None
    base = None if isinstance(found, str) else found
    changes: dict[str, Any] = {}
    title = text_of(metadata.get("title"))
    if title is not None and title != title_of(base):
        changes["title"] = title
    ours, theirs = metadata.get("metadata", b"{}"), base.raw_object("metadata") if base else b"{}"
    ended = metadata.get("active") == b"false"
    if ours != theirs and value_of(ours) != value_of(theirs):
        changes["metadata"] = value_of(ours)
    if ended:
        changes["metadata"] = {**value_of(ours), f"{OWN_PREFIX}active": False}
    if activity.new_messages and (base is not None or changes):
        changes["message_count"] = activity.messages
    if changes:
        updated = text_of(metadata.get("updated_at")) or ""
        changes["updated_at"] = later(updated, activity.last_timestamp)
    return changes


def changed_session(record: bytes, changes: Mapping[str, Any]) -> bytes:
    """session.json with *changes*, its other keys as they were. Raises `NotJson` when Python cannot hold them."""
    try:
        value: dict[str, Any] = json.loads(record)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
    return v2_json({**value, **changes})


def profile_changes(profile: Mapping[str, bytes], record: bytes) -> dict[str, Any]:
    """What profile.json must say anew of a migrated user. Raises `NotJson`."""
    base = source_object(record)
    if isinstance(base, str):
        raise NotJson(base)
    username = base.value.get("username")
    was = {
        "username": json.dumps(username if isinstance(username, str) else "").encode(),
        "preferences": base.raw_object("preferences"),
        "metadata": base.raw_object("metadata"),
    }
    changes = {
        key: value_of(profile[key])
        for key, raw in was.items()
        if key in profile and profile[key] != raw and value_of(profile[key]) != value_of(raw)
    }
    updated = text_of(profile.get("updated_at"))
    return {**changes, "updated_at": updated} if changes and updated else changes


def new_profile(profile: Mapping[str, bytes], user_id: str, written_at: str) -> bytes:
    """profile.json of a user made on the platform; *written_at* stands for a time that it lacks. Raises `NotJson`."""
    record = {key: value_of(raw) for key, raw in profile.items()}
    preferences = record.get("preferences")
    created = text_of(profile.get("created_at")) or written_at
    return v2_json(
        {
            "user_id": user_id,
            "username": text_of(profile.get("username")) or "",
            "created_at": created,
            "updated_at": text_of(profile.get("updated_at")) or created,
            "preferences": preferences if isinstance(preferences, dict) else {},
            "metadata": kept_metadata(record, _PROFILE_KEYS),
        }
    )


def later(first: str, second: str) -> str:
    """The later one of two timestamps; the first where they cannot be compared."""
    one, other = moment_of(first), moment_of(second)
    return second if other is not None and (one is None or other > one) else first
