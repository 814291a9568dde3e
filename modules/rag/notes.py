"""What is kept of a user beside documents: changes that have begun, and documents that cannot be read.

A change is noted before its first write and struck out after its last, so that whoever comes after a crash finishes it:
what was being added and does not exist is removed, and so is what was being removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from modules.core.errors import NotFound, StorageError
from modules.core.layout import component
from modules.core.storage import FlatFiles

HOME = "rag/indices/users"


@dataclass(slots=True)
class UserNotes:
    """``unreadable``: why, by document. ``erasing``: everything of the user is to go."""

    user_id: str
    adding: set[str] = field(default_factory=set)
    removing: set[str] = field(default_factory=set)
    erasing: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def has_begun(self) -> bool:
        return bool(self.adding or self.removing or self.erasing)

    @property
    def is_empty(self) -> bool:
        return not (self.has_begun or self.unreadable)


class Notes:
    """One file for each user who needs one. Safe for several threads, one at a time for each user."""

    def __init__(self, files: FlatFiles) -> None:
        self._files = files
        self._held: dict[str, UserNotes] = {}
        self._lock = Lock()

    def of(self, user_id: str) -> UserNotes:
        """Raises StorageError."""
        with self._lock:
            if user_id not in self._held:
                self._held[user_id] = self._read(_key(user_id)) or UserNotes(user_id)
            return self._held[user_id]

    def change(self, user_id: str, change: Callable[[UserNotes], Any], *, fsync: bool = False) -> None:
        """Apply *change*; written when this returns. Raises StorageError."""
        notes = self.of(user_id)
        change(notes)
        if notes.is_empty:
            self._files.delete(_key(user_id))
            return
        told = {
            "user_id": user_id,
            "adding": sorted(notes.adding),
            "removing": sorted(notes.removing),
            "erasing": notes.erasing,
            "unreadable": notes.unreadable,
        }
        self._files.write(_key(user_id), json.dumps(told).encode() + b"\n", fsync=fsync)

    def forget(self, user_id: str) -> None:
        with self._lock:
            self._held.pop(user_id, None)
        self._files.delete(_key(user_id))

    def begun(self) -> list[str]:
        """Users with changes that were cut short."""
        found = (self._read(key) for key in self._files.list(f"{HOME}/"))
        return [notes.user_id for notes in found if notes is not None and notes.has_begun]

    def _read(self, key: str) -> UserNotes | None:
        try:
            told = json.loads(self._files.read(key))
            return UserNotes(
                user_id=told["user_id"],
                adding=set(told["adding"]),
                removing=set(told["removing"]),
                erasing=told["erasing"],
                unreadable=dict(told["unreadable"]),
            )
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{key} is damaged: {error!r}", key=key) from error


def _key(user_id: str) -> str:
    return f"{HOME}/{component(user_id)}.json"
