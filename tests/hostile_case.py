"""What a case of bad input is: a small v2 tree, and what a correct migration makes of it (docs/target.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from uuid import NAMESPACE_URL, uuid5


class Notice(NamedTuple):
    """The report must have an issue of *kind* (migration/issues.py) that names *path*, in its path or its detail.

    The path is written as the report shows it: bytes that are not UTF-8 as ``%XX`` (`shown`).
    """

    path: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the migration of one tree must end with.

    Paths are those of v2, relative to the tree (not UTF-8: with surrogate escapes). Counts of messages include the
    salvaged ones; `quarantined` are lines that became no message. Every path in `attic`, `links` and `special` must
    be named in the report; every regular file that is neither in `attic` nor in `ignored` must be migrated. `ids` are
    message ids in line order, None where the case does not ask.
    """

    sessions: frozenset[tuple[str, str]] = frozenset()  # (user, session)
    archived: frozenset[tuple[str, str, str]] = frozenset()  # (user, session, stamp)
    profiles: frozenset[str] = frozenset()
    messages: int = 0
    archived_messages: int = 0
    panel_messages: int = 0
    salvaged: int = 0
    quarantined: int = 0
    blank: int = 0
    shards: int = 0
    documents: int = 0
    contexts: int = 0
    snapshots: int = 0
    vector_sets: int = 0
    personas: int = 0
    panels: int = 0
    insights: int = 0
    attic: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    special: frozenset[str] = frozenset()
    notices: frozenset[Notice] = frozenset()
    ids: Mapping[tuple[str, str], tuple[str, ...]] | None = None
    v2_config: Mapping[str, Any] | None = None  # the configuration the migration is given with the tree


Case: TypeAlias = Callable[[Path], Expectation]

SESSION = "chat_session_20250801_100000_000001"
HOME = f"users/ada/{SESSION}"
ONE: frozenset[tuple[str, str]] = frozenset({("ada", SESSION)})


class Tree:
    """Writes the files of a case below *root*; names may be bytes."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        os.makedirs(self._root, exist_ok=True)

    def path(self, name: str | bytes) -> bytes:
        """Where *name* stands; its parent exists after this."""
        full = os.path.join(self._root, os.fsencode(name))
        os.makedirs(os.path.dirname(full), exist_ok=True)
        return full

    def put(self, name: str | bytes, content: bytes | str | Mapping[str, Any] = b"") -> None:
        """Write bytes as they are, text as UTF-8, a mapping as v2 writes its JSON files."""
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else v2_json(content)).encode()
        with open(self.path(name), "xb") as file:
            file.write(content)

    def session(self, home: str = HOME, user: str = "ada", messages: int = 1) -> None:
        """A sound session with *messages* messages ``msg_1``, ``msg_2``, ... in the directory *home*."""
        self.put(f"{home}/session.json", session_record(user, home.rpartition("/")[2]))
        if messages:
            self.put(f"{home}/messages.jsonl", b"".join(good(number + 1) + b"\n" for number in range(messages)))


def v2_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def good(number: int, **more: Any) -> bytes:
    """A sound message line without its newline, id ``msg_<number>``."""
    record = {
        "role": "user",
        "content": "Where does the Nile begin?",
        "message_id": f"msg_{number}",
        "timestamp": f"2025-08-01T10:00:{number:02d}.000001",
        "attachments": [],
        "metadata": {},
    }
    return json.dumps(record | more, ensure_ascii=False).encode()


def session_record(user: object = "ada", session: str = SESSION, **more: Any) -> dict[str, Any]:
    return {
        "session_id": session,
        "user_id": user,
        "title": "Rivers",
        "created_at": "2025-08-01T10:00:00.000001",
        "updated_at": "2025-08-01T10:05:00",
        "message_count": 1,
        "metadata": {},
    } | more


def profile_record(user: object = "ada", **more: Any) -> dict[str, Any]:
    return {
        "user_id": user,
        "username": "",
        "created_at": "2025-08-01T09:00:00.000001",
        "updated_at": "2025-08-01T09:00:00.000009",
        "preferences": {},
        "metadata": {},
    } | more


def document_entry(document: str, **more: Any) -> dict[str, Any]:
    return {
        "filename": document,
        "original_name": document.partition("_")[2],
        "path": f"{HOME}/documents/{document}",
        "mime_type": "text/plain",
        "size": 4,
        "uploaded_at": "2025-08-01T10:02:00.000001",
        "uploaded_by": "ada",
        "analysis": {},
        "metadata": {},
    } | more


def derived_id(user: str, session: str, line: int) -> str:
    """The id of a message that has none, by the words of docs/target.md."""
    return "msg_" + uuid5(uuid5(NAMESPACE_URL, "modchat:message"), f"{user}\0{session}\0{line}").hex


def shown(path: str) -> str:
    """A path of v2 as text: bytes that are not UTF-8 as ``%XX``."""
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in path)
