"""All that is kept of one user's chats on disk: exported whole, removed whole. Synchronous; called from threads.

=====================================  ==================================================
``text_chat/users/<user>/``            the profile that a migration brought
``text_chat/sessions/<user>/``         sessions, with quarantine, copies by persona, state
``text_chat/archive/<user>/``          deleted sessions that a migration brought
``text_chat/indices/``                 one file of all users' sessions; one index over all messages
=====================================  ==================================================

An index over messages cannot give up one user's words on the spot: what was deleted stays in its segments until they
are merged. So it is removed whole; `modchat index build` makes it anew from what is left.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modules.core.errors import NotFound
from modules.core.layout import component
from modules.core.storage import FlatFiles

from .open_session import OpenSession

_OF_A_USER = ("text_chat/users", "text_chat/sessions", "text_chat/archive")
_SESSIONS_BY_USER = "text_chat/indices/user_sessions.json"
_MESSAGE_INDEX = "text_chat/indices/messages"


@dataclass(frozen=True, slots=True)
class ChatErasure:
    """What was removed of a user. ``index_removed``: the index over all messages went too, and can be built anew."""

    user_id: str
    sessions: int
    files: int
    index_removed: bool


class UserFiles:
    def __init__(self, files: FlatFiles, user_id: str) -> None:
        self._files = files
        self._user_id = user_id
        self._roots = [f"{root}/{component(user_id)}" for root in _OF_A_USER]

    def keys(self) -> list[str]:
        """Keys of all files of the user."""
        return [key for root in self._roots for key in self._files.list(f"{root}/")]

    def export(self, sessions: Iterable[OpenSession]) -> dict[str, Any]:
        """The *sessions* with all their messages, and the content of every other file by its key: text, or
        ``{"base64": ...}`` of what is not UTF-8."""
        given: list[dict[str, Any]] = []
        given_otherwise: set[str] = set()
        for opened in sessions:
            given.append({**opened.session.to_dict(), "messages": [one.to_dict() for one in opened.messages()]})
            given_otherwise |= {opened.log.key, opened.log.state_key}
        others = [key for key in self.keys() if key not in given_otherwise]
        files = {key: _as_json(self._files.read(key)) for key in others}
        return {"user_id": self._user_id, "sessions": given, "files": files}

    def leave_indices(self) -> tuple[int, bool]:
        """To be called before the rest goes: as long as that is there, a second call knows that this is to be done.
        How many files there are of the user, and whether the message index was removed."""
        files = len(self.keys())
        self._leave_the_list()
        return files, files > 0 and self._files.delete_tree(_MESSAGE_INDEX)

    def erase(self) -> None:
        for root in self._roots:
            self._files.delete_tree(root)
        self._files.empty_trash()  # where an earlier deletion was broken off

    def _leave_the_list(self) -> None:
        try:
            listed = json.loads(self._files.read(_SESSIONS_BY_USER))
        except NotFound:
            return
        except ValueError:
            listed = None
        if not isinstance(listed, dict):
            self._files.delete(_SESSIONS_BY_USER)  # damaged: it may hold anything, and can be built anew
        elif listed.pop(self._user_id, None) is not None:
            data = json.dumps(listed, ensure_ascii=False).encode("utf-8", "surrogatepass")
            self._files.write(_SESSIONS_BY_USER, data, fsync=True)


def _as_json(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
