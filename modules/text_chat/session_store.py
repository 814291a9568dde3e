"""Sessions on disk: making, finding, listing, changing and removing them. Synchronous; called from threads.

A session is a directory with a metadata.json, which is written last: a directory without one is no session (yet).
metadata.json is rewritten member by member, so what a migration put into ``legacy`` keeps its bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from modules.core.clock import Clock, IdMaker, moment_of
from modules.core.errors import Conflict, NotFound, StorageError, ValidationError
from modules.core.layout import component, name_of, session_dir
from modules.core.storage import FlatFiles
from modules.core.types import Session

from .json_values import Unreadable
from .message_log import MessageLog
from .raw_object import RawObject
from .records import session_of, to_json
from .state import SessionState

SESSIONS = "text_chat/sessions"
_USERS_REMEMBERED = 1000
_LONGEST_TITLE = 500
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """A session as the catalogue knows it. ``migrated``: it came from elsewhere and has a ``legacy`` member.
    ``state``: what was written to it since ``session`` was made out."""

    session: Session
    migrated: bool
    state: SessionState | None = None

    def now(self) -> Session:
        return self.session if self.state is None else _with_state(self.session, self.state)


class SessionStore:
    """Safe for use from several threads; writes to one session are for its one writer."""

    def __init__(self, files: FlatFiles, clock: Clock, new_session_id: IdMaker, *, fsync: bool) -> None:
        self._files = files
        self._clock = clock
        self._new_session_id = new_session_id
        self._fsync = fsync
        self._catalogue: OrderedDict[str, dict[str, Listed]] = OrderedDict()
        self._lock = threading.Lock()

    def create(
        self,
        user_id: str,
        title: str,
        metadata: Mapping[str, Any],
        session_type: str,
        *,
        at_most: int,
        log: bytes = b"",
    ) -> Session:
        """A new session, with *log* as its first messages. Raises Conflict when the user has *at_most* already."""
        check_title(title)
        now = self._clock.now().isoformat()
        # All checks come before the id is claimed: a refused session leaves no directory behind.
        draft = Session(
            "unnamed", user_id, title, now, now, metadata, session_type, True, message_count=log.count(b"\n")
        )
        to_json(draft.to_dict(), "session")
        own = [one for one in self._listed(user_id).values() if not one.migrated]
        if len(own) >= at_most:
            raise Conflict(f"user {user_id!r} has {len(own)} sessions of at most {at_most}; delete one first")
        session_id = self._claim(user_id)
        session = replace(draft, id=session_id)
        document = to_json(session.to_dict(), "session")
        directory = session_dir(user_id, session_id)
        if log:
            self._files.write(f"{directory}/messages.jsonl", log, fsync=self._fsync)
        self._files.write(f"{directory}/metadata.json", document, fsync=self._fsync)
        self._remember(session, migrated=False)
        return session

    def get(self, user_id: str, session_id: str, state: SessionState | None = None) -> Session:
        """The session as it is now; *state* is what its writer knows of it. Raises NotFound."""
        return self._read(user_id, session_id, state).session

    def owners(self, session_id: str) -> list[str]:
        """Users that have a session of this id. Looks once into every user's directory."""
        name = component(session_id)
        found = []
        for user in self._files.directories(SESSIONS):
            key = f"{SESSIONS}/{user}/{name}/metadata.json"
            if self._files.exists(key):
                found.append(self._true_name(user, key, "user_id"))
        return sorted(found)

    def of_user(self, user_id: str) -> list[Session]:
        """All sessions of a user, newest first. After the first time, only new ones are read."""
        sessions = [one.now() for one in self._listed(user_id).values()]
        return sorted(sessions, key=lambda one: (moment_of(one.updated_at) or _EARLIEST, one.id), reverse=True)

    def change(self, session: Session, **changes: Any) -> Session:
        """Rewrite members of metadata.json; the others keep their bytes. *session* is the session as it is now."""
        key = f"{session_dir(session.user_id, session.id)}/metadata.json"
        try:
            document = RawObject.parse(self._files.read(key))
        except Unreadable as error:
            raise StorageError(f"{key} is damaged and is left as it is: {error}", key=key) from error
        now = self._clock.now().isoformat()
        changed = replace(session, updated_at=now, **changes)
        document = document.replaced(updated_at=now, message_count=session.message_count, **changes)
        self._files.write(key, document.to_bytes(), fsync=self._fsync)
        self._remember(changed, migrated=document.get("legacy") is not None)
        return changed

    def delete(self, user_id: str, session_id: str) -> bool:
        """Remove the session's directory with all that is in it."""
        with self._lock:
            self._catalogue.get(user_id, {}).pop(component(session_id), None)
        return self._files.delete_tree(session_dir(user_id, session_id))

    def forget_user(self, user_id: str) -> None:
        """Know nothing of the user any more but what stands on disk."""
        with self._lock:
            self._catalogue.pop(user_id, None)

    def note_activity(self, user_id: str, session_id: str, state: SessionState) -> None:
        """Let lists show what was just written."""
        with self._lock:
            listed = self._catalogue.get(user_id, {})
            name = component(session_id)
            if (one := listed.get(name)) is not None:
                listed[name] = Listed(one.session, one.migrated, state)

    def _claim(self, user_id: str) -> str:
        for _ in range(_ATTEMPTS):
            session_id = self._new_session_id()
            if self._files.make_directory(session_dir(user_id, session_id), fsync=self._fsync):
                return session_id
        raise StorageError(f"no free session id after {_ATTEMPTS} attempts", retryable=True)

    def _listed(self, user_id: str) -> dict[str, Listed]:
        names = self._files.directories(f"{SESSIONS}/{component(user_id)}")
        with self._lock:
            known = dict(self._catalogue.get(user_id, {}))
        current: dict[str, Listed] = {}
        for name, one in self._read_where_unknown(user_id, names, known):
            current[name] = one
        with self._lock:
            # What was written meanwhile is newer than what was read.
            newer = {name: one for name, one in self._catalogue.get(user_id, {}).items() if name in current}
            self._catalogue[user_id] = current | newer
            self._catalogue.move_to_end(user_id)
            if len(self._catalogue) > _USERS_REMEMBERED:
                self._catalogue.popitem(last=False)
            return dict(self._catalogue[user_id])

    def _read_where_unknown(
        self, user_id: str, names: list[str], known: Mapping[str, Listed]
    ) -> Iterator[tuple[str, Listed]]:
        for name in names:
            if name in known:
                yield name, known[name]
                continue
            key = f"{SESSIONS}/{component(user_id)}/{name}/metadata.json"
            if self._files.exists(key):
                with suppress(NotFound):  # deleted meanwhile
                    yield name, self._read(user_id, self._true_name(name, key, "id"), None)

    def _read(self, user_id: str, session_id: str, state: SessionState | None) -> Listed:
        key = f"{session_dir(user_id, session_id)}/metadata.json"
        try:
            data = self._files.read(key)
        except NotFound:
            raise NotFound(f"user {user_id!r} has no session {session_id!r}") from None
        try:
            document = RawObject.parse(data)
        except Unreadable as error:
            # The messages are still there, and a list that fails for one damaged file would hide all the others.
            session = Session(session_id, user_id, "Untitled", metadata={"damaged": str(error)})
            return Listed(session, migrated=False)
        session = session_of(document, user_id, session_id)
        state = state or self._state_of(user_id, session_id)
        return Listed(_with_state(session, state) if state else session, document.get("legacy") is not None)

    def _state_of(self, user_id: str, session_id: str) -> SessionState | None:
        """What state.json says, if it still holds; else what the log says, if it was ever written to here."""
        log = MessageLog(self._files, user_id, session_id)
        saved = log.saved_state()
        return log.look(saved) if saved else None

    def _remember(self, session: Session, *, migrated: bool) -> None:
        with self._lock:
            if session.user_id in self._catalogue:
                self._catalogue[session.user_id][component(session.id)] = Listed(session, migrated)

    def _true_name(self, name: str, key: str, member: str) -> str:
        """What a path component stands for. A component that was cut is known only to the file inside."""
        true_name = name_of(name)
        if true_name is not None:
            return true_name
        try:
            stored = RawObject.parse(self._files.read(key)).get(member)
        except Unreadable:
            stored = None
        return stored if isinstance(stored, str) else name


def check_title(title: object) -> None:
    if not isinstance(title, str) or not 1 <= len(title) <= _LONGEST_TITLE:
        raise ValidationError(f"title must be text of 1 to {_LONGEST_TITLE} characters", param="title")


def _with_state(session: Session, state: SessionState) -> Session:
    """What the log knows better than metadata.json, which is not rewritten at every message."""
    earlier, later = moment_of(session.updated_at) or _EARLIEST, moment_of(state.last_activity)
    updated_at = state.last_activity if later and later > earlier else session.updated_at
    return replace(session, updated_at=updated_at, message_count=state.message_count)
