"""What a migration keeps of a user where no module looks: found, exported, removed. Blocks: called from threads.

==============================  ==============================================================================
``attic/<user's directory>/``   files that no rule claimed, below the directories that were the user's in v2
``indices/master_index.json``   the list of all users' sessions and documents
==============================  ==============================================================================

Whose a directory of v2 was is known from the profile and the sessions that came out of it (``legacy.path``), and, for
what neither names, from its name. What stands in the attic outside of all users' directories (exports, logs) may hold
anybody's words; it is left, and those files that name the user are listed, for a person to look at.

Left too: `.migration/` (names of files and counts, no contents), backups, and the v2 store itself. A migration that is
run again from a v2 store that still has the user brings the user back.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modules.core.errors import NotFound
from modules.core.layout import component
from modules.core.storage import FlatFiles

_ATTIC = "attic"
_MASTER = "indices/master_index.json"
_RUN = ".migration/run.json"
_USUAL_USERS_DIR = "users"
_BLOCK_BYTES = 1 << 20
_LONGEST_NAME = 255  # bytes, as file systems have it


@dataclass(frozen=True, slots=True)
class Removed:
    """``attic_files``: how many went. ``mentions``: files of the attic that are nobody's, and name the user."""

    attic_files: int
    mentions: tuple[str, ...]


class Leftovers:
    """To be asked before the modules are: what they remove is what says which directories were the user's."""

    def __init__(self, files: FlatFiles, user_id: str) -> None:
        self._files = files
        self._user_id = user_id
        self._places = sorted(self._directories())

    def export(self) -> dict[str, Any]:
        """Contents of the attic's files by key: text, or ``{"base64": ...}``."""
        return {key: _as_json(self._files.read(key)) for key in self._keys()}

    def erase(self) -> Removed:
        keys = self._keys()
        for place in self._places:
            self._files.delete_tree(place)
        self._leave_the_master_index()
        return Removed(len(keys), tuple(self._mentions()))

    def _keys(self) -> list[str]:
        return sorted({key for place in self._places for key in self._files.list(f"{place}/")})

    def _directories(self) -> Iterator[str]:
        """Directories of the attic that were the user's, each once or more."""
        for path in (*self._by_name(), *self._by_legacy()):
            if _is_below_attic(path):
                yield f"{_ATTIC}/{path}"

    def _by_name(self) -> Iterator[str]:
        if "/" in self._user_id or not self._user_id:
            return  # no directory can have had that name
        run = self._object(_RUN) or {}
        named = run.get("users_dirs")
        users_dirs = named if isinstance(named, list) else []
        # Not at the top, where the oldest stores had them: what has the name there could be an operator's.
        for users_dir in {_USUAL_USERS_DIR, *(one for one in users_dirs if isinstance(one, str))}:
            yield f"{users_dir}/{self._user_id}"

    def _by_legacy(self) -> Iterator[str]:
        user = component(self._user_id)
        profile = self._legacy_path(f"text_chat/users/{user}/profile.json")
        if profile is not None:
            yield os.path.dirname(profile)
        for name in self._files.directories(f"text_chat/sessions/{user}"):
            session = self._legacy_path(f"text_chat/sessions/{user}/{name}/metadata.json")
            if session is not None:
                yield session

    def _legacy_path(self, key: str) -> str | None:
        legacy = (self._object(key) or {}).get("legacy")
        path = legacy.get("path") if isinstance(legacy, dict) else None
        return path if isinstance(path, str) else None

    def _leave_the_master_index(self) -> None:
        index = self._object(_MASTER)
        if index is None:
            self._files.delete(_MASTER)  # absent, or damaged: it may hold anything, and can be built anew
            return
        sessions = index.get("user_sessions")
        documents = (index.get("document_registry") or {}).get("documents")
        if isinstance(sessions, dict):
            sessions.pop(self._user_id, None)
        if isinstance(documents, dict):
            for document in [name for name, one in documents.items() if one.get("user_id") == self._user_id]:
                del documents[document]
        data = json.dumps(index, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._files.write(_MASTER, data, fsync=True)

    def _mentions(self) -> Iterator[str]:
        name = self._user_id.encode("utf-8", "surrogatepass")
        if not name:
            return
        for key in self._files.list(f"{_ATTIC}/"):
            if self._holds(key, name):
                yield key

    def _holds(self, key: str, name: bytes) -> bool:
        with self._files.opened(key, os.O_RDONLY) as fd:
            tail = b""
            while block := os.read(fd, _BLOCK_BYTES):
                if name in tail + block:
                    return True
                tail = block[-len(name) :]
        return False

    def _object(self, key: str) -> dict[str, Any] | None:
        """The JSON object under *key*; None where there is none."""
        try:
            value = json.loads(self._files.read(key))
        except (NotFound, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def _is_below_attic(path: str) -> bool:
    parts = path.split("/")
    is_path = bool(path) and not any(part in ("", ".", "..") for part in parts) and "\0" not in path
    return is_path and all(len(os.fsencode(part)) <= _LONGEST_NAME for part in parts)


def _as_json(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
