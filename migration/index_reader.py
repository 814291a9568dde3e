"""Reading the platform's tree for its indices, in slices of bounded size: what a worker does.

A slice names a few users. The worker answers with one msgpack object that holds their sessions and messages up to a
limit of bytes, and, when it reached the limit, the slice that is still to be read. So neither a user with a million
messages nor a session with a gigabyte of them needs more memory than any other.

Ids come from directory names; `metadata.json` is opened only where a name cannot tell: it was cut, or is not UTF-8.
An id with lone surrogates is spelled with their escapes, as neither the index nor UTF-8 can hold them (`indexed_id`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from modules.core.layout import derived_message_id, name_of
from modules.text_chat.json_values import Unreadable, read_value

SESSIONS = "text_chat/sessions"
DOCUMENTS = "rag/documents"

_BUFFER = 1 << 18
_ROW_OVERHEAD = 100  # bytes that a row takes beside its line
_REGISTERED = ("user_id", "session_id", "title", "content_type", "size_bytes", "sha256")


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A line of a session's messages; *line* counts from 1."""

    session: str
    offset: int
    line: int


class UserSlice(msgspec.Struct, frozen=True):
    """Users to read, by the names of their directories; the first of them from *start* on."""

    base: str
    users: tuple[str, ...]
    limit: int
    start: Position | None = None


class MessageRow(msgspec.Struct, frozen=True, array_like=True):
    user_id: str
    session_id: str
    message_id: str
    role: str
    timestamp: str
    content: str
    line: int


class UserContent(msgspec.Struct):
    """What was read of a slice. Every session is named once, whatever the number of slices it takes."""

    users: list[str] = []
    sessions: list[tuple[str, str]] = []
    rows: list[MessageRow] = []
    skipped_lines: int = 0
    problems: list[str] = []
    rest: UserSlice | None = None


class DocumentSlice(msgspec.Struct, frozen=True):
    base: str
    directories: tuple[str, ...]


class DocumentContent(msgspec.Struct):
    documents: dict[str, dict[str, Any]] = {}
    problems: list[str] = []


def read_users(part: UserSlice) -> bytes:
    """A `UserContent` as msgpack: the messages of the slice up to its limit. Raises OSError for what cannot be read."""
    return msgspec.msgpack.encode(_SliceReader(part).read())


def read_documents(part: DocumentSlice) -> bytes:
    """A `DocumentContent` as msgpack: the registry's entries for these documents. Raises OSError."""
    content = DocumentContent()
    for directory in part.directories:
        path = f"{DOCUMENTS}/{directory}/metadata.json"
        try:
            metadata = _read_object(f"{part.base}/{path}")
        except Unreadable as error:
            content.problems.append(f"{path}: {error}")
            continue
        if metadata is not None:
            identity = metadata.get("id")
            if not isinstance(identity, str):
                identity = _id_of(directory) or directory
            content.documents[identity] = {name: metadata.get(name) for name in _REGISTERED}
    return msgspec.msgpack.encode(content)


def directories_in(path: str) -> list[str]:
    """Names of the directories that are there for good (a component never starts with a dot), sorted; links are not
    followed. A directory that does not exist holds none."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


class _SliceReader:
    def __init__(self, part: UserSlice) -> None:
        self._part = part
        self._content = UserContent()
        self._size = 0

    def read(self) -> UserContent:
        for index, user in enumerate(self._part.users):
            start = self._part.start if index == 0 else None
            stopped_at = self._read_user(user, start)
            if stopped_at is not None:
                users = self._part.users[index:]
                self._content.rest = UserSlice(self._part.base, users, self._part.limit, stopped_at)
                break
        return self._content

    def _read_user(self, user: str, start: Position | None) -> Position | None:
        """Reads on until the user's end, or to the position at which the slice is full."""
        user_id = _id_of(user)
        if start is None and user_id is not None:
            self._content.users.append(user_id)
        for session in directories_in(f"{self._part.base}/{SESSIONS}/{user}"):
            if start is not None and session < start.session:
                continue
            at = start if start is not None and session == start.session else Position(session, 0, 1)
            if self._size >= self._part.limit:
                return at
            ids = self._identify(user, session, user_id)
            if ids is None:
                continue
            if at.offset == 0:
                self._content.sessions.append(ids)
            stopped_at = self._read_messages(user, at, ids)
            if stopped_at is not None:
                return stopped_at
        return None

    def _identify(self, user: str, session: str, user_id: str | None) -> tuple[str, str] | None:
        """User and session id; None when there is no session, or no way to know what it is called."""
        session_id = _id_of(session)
        path = f"{SESSIONS}/{user}/{session}/metadata.json"
        if user_id is not None and session_id is not None:
            return (user_id, session_id) if _exists(f"{self._part.base}/{path}") else None
        try:
            written = _ids_in(f"{self._part.base}/{path}")
        except Unreadable as error:
            self._content.problems.append(f"{path}: {error}")
            return None
        return None if written is None else (user_id or written[0], session_id or written[1])

    def _read_messages(self, user: str, at: Position, ids: tuple[str, str]) -> Position | None:
        offset, line_number = at.offset, at.line
        with _open_if_there(f"{self._part.base}/{SESSIONS}/{user}/{at.session}/messages.jsonl", offset) as lines:
            for line in lines:
                if self._size >= self._part.limit:
                    return Position(at.session, offset, line_number)
                self._take(line, ids, line_number)
                offset += len(line)
                line_number += 1
        return None

    def _take(self, line: bytes, ids: tuple[str, str], line_number: int) -> None:
        self._size += len(line) + _ROW_OVERHEAD
        if line.isspace():
            return
        try:
            record, _ = read_value(line)
        except Unreadable:
            record = None
        if not isinstance(record, dict):
            self._content.skipped_lines += 1
            return
        message_id = record.get("id")
        if not isinstance(message_id, str) or not message_id:
            message_id = derived_message_id(*ids, line_number)
        role, timestamp, content = (_text(record.get(key)) for key in ("role", "timestamp", "content"))
        self._content.rows.append(MessageRow(*ids, message_id, role, timestamp, content, line_number))


def _text(value: object) -> str:
    """What can be searched of a value: a string itself, nothing of nothing, the JSON text of anything else."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def indexed_id(identity: str) -> str:
    """An id as the index spells it."""
    return identity.encode("utf-8", "backslashreplace").decode()


def _id_of(component: str) -> str | None:
    """The id that a directory's name stands for; None when only the files inside know it."""
    name = name_of(component)
    return None if name is None or "\ufffd" in name else name


def _ids_in(path: str) -> tuple[str, str] | None:
    """User and session id in a session's metadata.json; None where there is none. Raises Unreadable."""
    try:
        with open(path, "rb") as file:
            # Not read_value: it makes lone surrogates one character, and two ids must not become one.
            metadata = json.loads(file.read(), parse_int=str)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error
    ids = (metadata.get("user_id"), metadata.get("id")) if isinstance(metadata, dict) else ()
    match ids:
        case (str(user_id), str(session_id)):
            return indexed_id(user_id), indexed_id(session_id)
    raise Unreadable("holds no user_id and id, which the directory's name does not tell")


def _read_object(path: str) -> dict[str, Any] | None:
    """The JSON object in a file, None where there is no file. Raises Unreadable when it holds something else."""
    try:
        with open(path, "rb") as file:
            value, _ = read_value(file.read())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise Unreadable("not a JSON object")
    return value


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _open_if_there(path: str, offset: int) -> Iterator[Iterator[bytes]]:
    """The lines of a file from *offset* on; none where there is no file."""
    try:
        file = open(path, "rb", buffering=_BUFFER)  # noqa: SIM115  closed below, by the same function
    except FileNotFoundError:
        yield iter(())
        return
    with file:
        file.seek(offset)
        yield file
