"""Sessions and messages of the old API on the platform's store. Synchronous; called from threads.

A session to which messages came before anybody made it says so in its metadata.json. As with one that a migration
brought without a session.json, the platform shows it, and the old API, which never knew it as a session, gives its
messages and no session.
"""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from migration.legacy_store import LegacyStore, Record, below, made_plain
from migration.transform import session_type_of
from migration.v2.layout import is_redirected
from modules.core.clock import moment_of
from modules.core.errors import NotFound
from modules.core.layout import component, session_dir
from modules.core.storage import FileStamp
from modules.text_chat.json_values import Unreadable
from modules.text_chat.message_log import MessageLog
from modules.text_chat.raw_object import RawObject
from modules.text_chat.state import SessionState

log = logging.getLogger(__name__)

ROOT = "text_chat/sessions"
_PREFIXES = {kind: f"{kind}_session" for kind in ("chat", "panel", "debate", "problem_solving")}
_TITLES = {
    "chat": "New Chat",
    "panel": "Panel Session",
    "debate": "Debate Session",
    "problem_solving": "Problem Solving Session",
}
_LINES_A_STATE = 32
_IMPLIED = "implied"
_NOBODY = "test123"


def login_name() -> str:
    """Under whose name sessions of personas are kept: the login's, as the old application finds it."""
    try:
        return os.environ.get("USER") or os.environ.get("USERNAME") or getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as in containers
        return _NOBODY


def writer_of(user_id: str | None) -> str:
    """The user that the old application writes a session or message for: personas and nobody are the login."""
    if user_id and not is_redirected(user_id):
        return user_id
    name = login_name()
    log.warning("%r is no user's id: what is written goes to user %r", user_id, name)
    return name


class LegacySessions:
    def __init__(self, store: LegacyStore) -> None:
        self._store = store
        self._files = store.files

    # -- sessions --------------------------------------------------------------------------------------------

    def create(self, user_id: str, title: str | None, session_type: str, session_id: str | None = None) -> str:
        """A new session's id; with *session_id* that one, made unless it is there."""
        moment = self._store.now()
        prefix = _PREFIXES.get(session_type, _PREFIXES["chat"])
        while True:
            new_id = session_id if session_id is not None else f"{prefix}_{moment:%Y%m%d_%H%M%S_%f}"
            with self._store.locks.held(_lock(user_id, new_id)):
                if session_id is not None and self.record(user_id, new_id) is not None:
                    return new_id
                if session_id is not None or self._files.make_directory(session_dir(user_id, new_id), fsync=True):
                    self._write(user_id, new_id, title, session_type)
                    return new_id
            moment += timedelta(microseconds=1)  # somebody has this one

    def _write(
        self, user_id: str, session_id: str, title: str | None, session_type: str, *, implied: bool = False
    ) -> None:
        now = self._store.now().isoformat()
        record = {
            "id": session_id,
            "user_id": user_id,
            "title": title or _TITLES.get(session_type, "New Session"),
            "created_at": now,
            "updated_at": now,
            "metadata": {},
            "session_type": session_type or "chat",
            "message_count": 0,
            "active": True,
        }
        self._store.write_object(_metadata(user_id, session_id), {**record, **({_IMPLIED: True} if implied else {})})

    def record(self, user_id: str, session_id: str) -> Record | None:
        """The session's fields; None where there is none."""
        try:
            document = RawObject.parse(self._files.read(_metadata(user_id, session_id)))
        except (Unreadable, NotFound):
            return None
        return self._fields(document, user_id, session_id)

    def _fields(self, document: RawObject, user_id: str, session_id: str) -> Record | None:
        if _is_implied(document):
            return None
        state = self.state(user_id, session_id)
        metadata = document.get("metadata")
        return {
            "session_id": session_id,
            "user_id": _text(document, "user_id") or user_id,
            "title": _text(document, "title") or "Untitled",
            "session_type": _text(document, "session_type") or "chat",
            "created_at": _text(document, "created_at"),
            "updated_at": _later(_text(document, "updated_at"), state.last_activity),
            "message_count": state.message_count,
            "metadata": metadata if isinstance(metadata, dict) else {},
        }

    def state(self, user_id: str, session_id: str) -> SessionState:
        """What is known of the session's log as it stands; counted on from where somebody last counted."""
        messages = MessageLog(self._files, user_id, session_id)
        saved = messages.saved_state()
        state = messages.look(saved)
        was = saved.message_count if saved else 0
        known = saved is not None and saved.covers_a_part_of(FileStamp(state.log_inode, state.log_bytes))
        if state.message_count - (was if known else 0) >= _LINES_A_STATE:
            messages.save_state(state)
        return state

    def update(self, user_id: str, session_id: str, updates: Mapping[str, Any]) -> bool:
        """Title and time are replaced, metadata merged; how many messages there are is counted, whatever *updates*
        says. Raises TypeError for metadata that are none."""
        key = _metadata(user_id, session_id)
        with self._store.locks.held(_lock(user_id, session_id)):
            record = self.record(user_id, session_id)
            if record is None:
                return False
            changes: Record = {"updated_at": updates.get("updated_at") or self._store.now().isoformat()}
            if "title" in updates:
                changes["title"] = updates["title"]
            if "metadata" in updates:
                changes["metadata"] = {**record["metadata"], **updates["metadata"]}
            changes["message_count"] = record["message_count"]
            document = RawObject.parse(self._files.read(key)).replaced(**changes)
            self._files.write(key, document.to_bytes(), fsync=True)
        return True

    def put(self, record: Mapping[str, Any]) -> None:
        """Make the session what *record* says, a record of the old application; messages stay."""
        user_id, session_id = record["user_id"], record["session_id"]
        key = _metadata(user_id, session_id)
        with self._store.locks.held(_lock(user_id, session_id)):
            if self.record(user_id, session_id) is None:
                made = {name: value for name, value in record.items() if name != "session_id"}
                self._store.write_object(key, {"id": session_id, **made, "active": True})
                return
            changes = {name: record[name] for name in ("title", "metadata", "updated_at")}
            document = RawObject.parse(self._files.read(key)).replaced(**made_plain(changes))
            self._files.write(key, document.to_bytes(), fsync=True)

    def ids(self, user_id: str) -> list[str]:
        """Of all sessions that have messages or were made, the highest first."""
        names = self._store.names_below(f"{ROOT}/{component(user_id)}", "metadata.json", "id")
        return sorted((name for _, name in names), reverse=True)

    def listed(self, user_id: str, offset: int = 0, limit: int | None = None) -> list[Record]:
        """Sessions, the highest id first; *limit* None for all."""
        found = (record for one in self.ids(user_id) if (record := self.record(user_id, one)) is not None)
        return list(islice(found, offset, None if limit is None else offset + limit))

    def delete(self, user_id: str, session_id: str) -> str | None:
        """Put the session's chat away; where its archive stands, or None where none is wanted."""
        home = session_dir(user_id, session_id)
        with self._store.locks.held(_lock(user_id, session_id)):
            if not self._store.settings.backup_before_delete:
                self._files.delete_tree(home)
                return None
            moment, archives = self._store.now(), below("text_chat/archive", user_id, session_id)
            while self._files.list(f"{archives}/{moment:%Y%m%d_%H%M%S}/"):
                moment += timedelta(seconds=1)
            archive = f"{archives}/{moment:%Y%m%d_%H%M%S}"
            if not self._files.list(f"{home}/"):
                return archive
            self._write_implied(user_id, session_id)  # where a crash has left a session's files without it
            self._files.rename(home, archive)
            key = f"{archive}/metadata.json"
            document = RawObject.parse(self._files.read(key)).replaced(active=False, archived_at=moment.isoformat())
            self._files.write(key, document.to_bytes(), fsync=True)
            return archive

    # -- messages --------------------------------------------------------------------------------------------

    def add(self, user_id: str, session_id: str, message: Mapping[str, Any], *, once: bool = False) -> bool:
        """Append a message. False for one that is too large or no JSON. With *once*, a message whose id the session
        has already is there already."""
        if not self._is_small_enough(message):
            return False
        line = {"id": message["message_id"], **{name: value for name, value in message.items() if name != "message_id"}}
        key = f"{session_dir(user_id, session_id)}/messages.jsonl"
        while True:
            with self._store.locks.held(_lock(user_id, session_id), shared=True):
                if self._files.exists(_metadata(user_id, session_id)):
                    try:
                        self._store.append(key, line, unless_there=message["message_id"] if once else None)
                    except (ValueError, TypeError, RecursionError) as error:
                        log.warning("a message of session %r is no JSON: %s", session_id, type(error).__name__)
                        return False
                    return True
            self._imply(user_id, session_id)

    def _is_small_enough(self, message: Mapping[str, Any]) -> bool:
        try:
            size = len(str(dict(message)).encode())
        except (UnicodeEncodeError, RecursionError):
            return False  # no JSON in UTF-8 either
        if size > self._store.settings.max_message_bytes:
            log.warning("a message of %d bytes is over the limit", size)
            return False
        return True

    def _imply(self, user_id: str, session_id: str) -> None:
        with self._store.locks.held(_lock(user_id, session_id)):
            self._write_implied(user_id, session_id)

    def _write_implied(self, user_id: str, session_id: str) -> None:
        if not self._files.exists(_metadata(user_id, session_id)):
            self._write(user_id, session_id, "Untitled", session_type_of(None, session_id), implied=True)

    def messages(self, user_id: str, session_id: str) -> Iterator[Record]:
        """The session's messages with the old names of their fields, oldest first."""
        for record in self._store.records(f"{session_dir(user_id, session_id)}/messages.jsonl"):
            message = message_fields(record)
            if message is not None:
                yield message

    def page(self, user_id: str, session_id: str, limit: int | None, offset: int) -> list[Record]:
        """From the start; *limit* None or 0 is a page of the usual size, a negative one nothing."""
        count = limit or self._store.settings.page_size
        if count < 0:
            return []
        first = max(0, offset)
        return list(islice(self.messages(user_id, session_id), first, first + count))

    def search(self, user_id: str, query: str, session_ids: Sequence[str] | None) -> list[Record]:
        """Messages that hold *query*, whatever the case, of the sessions named or of all, the newest session first."""
        wanted = query.lower()
        found = (
            message
            for session_id in (self.ids(user_id) if session_ids is None else session_ids)
            for message in self.messages(user_id, session_id)
            if wanted in message["content"].lower()
        )
        return list(islice(found, self._store.settings.search_limit))


def message_fields(record: Mapping[str, Any]) -> Record | None:
    """A stored message as the old API shows it; None for one without a role or content, which it never shows."""
    role, content = record.get("role"), record.get("content")
    if not (isinstance(role, str) and role and isinstance(content, str) and content):
        return None
    attachments, metadata = record.get("attachments"), record.get("metadata")
    return {
        "role": role,
        "content": content,
        "message_id": str(record.get("id") or record.get("message_id") or ""),
        "timestamp": str(record.get("timestamp") or ""),
        "attachments": [_attachment(one) for one in attachments] if isinstance(attachments, list) else [],
        "metadata": metadata if isinstance(metadata, dict) else {},
    }


def _attachment(one: object) -> str:
    """The platform keeps objects where the old application kept paths."""
    return str(one.get("url") or one.get("id") or "") if isinstance(one, dict) else str(one)


def _is_implied(document: RawObject) -> bool:
    legacy = document.get("legacy")
    is_migrated_without = isinstance(legacy, dict) and legacy.get("record") is None and "parts" not in legacy
    return is_migrated_without or document.get(_IMPLIED) is True


def _metadata(user_id: str, session_id: str) -> str:
    return f"{session_dir(user_id, session_id)}/metadata.json"


def _lock(user_id: str, session_id: str) -> str:
    return f"session\0{user_id}\0{session_id}"


def _text(document: RawObject, name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _later(one: str, other: str) -> str:
    first, second = moment_of(one), moment_of(other)
    return other if second is not None and (first is None or second > first) else one


def check_id(name: str, value: object) -> str:
    """*value* if it can be an id. Raises TypeError or ValueError, as the old application's records do."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    return value
