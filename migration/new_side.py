"""What the platform has written to a conversation since it was migrated, put together with what v2 says now.

``legacy.messages`` of its metadata.json counts the lines that came from v2; what stands after them is the platform's.
When v2 has changed, its lines are written anew, in v2's order, and the platform's follow. A message that both sides
hold (old and new side were written at once) stays where v2 has it. Where both hold one id and do not say the same,
v2's message stands in the conversation, and the platform's is kept in ``conflicts.jsonl`` beside it.

The messages file is locked while it is replaced: the platform appends under a shared lock (`modules.core.storage`),
so no line is written to a file that is about to go.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from migration.embed import SourceObject, source_object
from migration.lines import parse_object
from migration.target import Target, TargetError
from migration.transform import title_of

_OPEN_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_OURS = frozenset(
    (
        *("id", "user_id", "title", "created_at", "updated_at", "metadata", "session_type", "message_count"),
        *("active", "archived_at", "legacy"),
    )
)
CONFLICTS = "conflicts.jsonl"


@dataclass(frozen=True, slots=True)
class Merged:
    """Lines to stand after v2's, and lines that contradict v2's."""

    lines: tuple[bytes, ...] = ()
    conflicts: tuple[bytes, ...] = ()


@dataclass(slots=True)
class NewSide:
    """A conversation as the target has it. *lines*: what the platform added, without newlines; *metadata*: its
    metadata.json."""

    lines: tuple[bytes, ...] = ()
    metadata: SourceObject | None = None

    def merged(self, text: bytes | None, ids: set[str]) -> Merged:
        """The platform's lines beside *text*, which is v2's and holds messages of these *ids*."""
        kept: list[bytes] = []
        conflicts: list[bytes] = []
        said: dict[str, Any] | None = None
        for line in self.lines:
            message = parse_object(line)
            message_id = message.get("id") if isinstance(message, dict) else None
            if not isinstance(message, dict) or message_id not in ids:
                kept.append(line)
                continue
            if said is None:
                said = _said_in(text or b"", ids)
            if said.get(str(message_id)) != _what_is_said(message):
                conflicts.append(line)
        return Merged(tuple(kept), tuple(conflicts))

    def changes(self, record: SourceObject | None) -> tuple[dict[str, bytes], list[str]]:
        """Members of metadata.json that the platform has changed or added, as JSON; and the names of those that v2,
        by its present *record*, has changed too."""
        if self.metadata is None or self.legacy is None:
            return {}, []
        then = self._record_then()
        changed: dict[str, bytes] = {}
        both: list[str] = []
        for name, value_of in _CHANGEABLE.items():
            raw = self.metadata.raw_of(name)
            now, before = self.metadata.value.get(name), value_of(then)
            if raw is None or now == before:
                continue
            changed[name] = raw
            if value_of(record) not in (before, now):
                both.append(name)
        for name in self.metadata.value:
            raw = self.metadata.raw_of(name)
            if name not in _OURS and raw is not None:
                changed[name] = raw
        return changed, both

    @property
    def legacy(self) -> Mapping[str, Any] | None:
        """The ``legacy`` member; None when the platform made the conversation."""
        found = self.metadata.value.get("legacy") if self.metadata is not None else None
        return found if isinstance(found, dict) else None

    def _record_then(self) -> SourceObject | None:
        legacy = source_object((self.metadata.raw_of("legacy") if self.metadata is not None else None) or b"")
        raw = None if isinstance(legacy, str) else legacy.raw_of("record")
        record = source_object(raw) if raw is not None else "none"
        return None if isinstance(record, str) else record


_CHANGEABLE: Mapping[str, Any] = {
    "title": title_of,
    "metadata": lambda record: _object_or_empty(record, "metadata"),
    "active": lambda record: True,
}


@contextmanager
def locked(target: Target, messages: str, metadata: str) -> Iterator[NewSide]:
    """The conversation in the files *messages* and *metadata*, which nobody appends to meanwhile."""
    if not target.exists(metadata):
        yield NewSide()  # not there yet: nobody can have written to it
        return
    try:
        fd = os.open(messages, _OPEN_FLAGS, 0o666, dir_fd=target.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise TargetError.of(target.base, messages, error) from error
    try:
        found = source_object(target.read(metadata) or b"")
        known = None if isinstance(found, str) else found
        side = NewSide((), known)
        data = target.read(messages) or b""
        yield NewSide(_after(data, side.legacy), known)
        if target.size(messages) == 0:
            target.remove(messages)  # made here, and nothing was written to it
    finally:
        os.close(fd)


def _after(data: bytes, legacy: Mapping[str, Any] | None) -> tuple[bytes, ...]:
    count = str((legacy or {}).get("messages", 0))
    migrated = int(count) if count.isdigit() else 0
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return tuple(line for line in lines[migrated:] if line.strip())


def _said_in(text: bytes, ids: set[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for line in text.split(b"\n"):
        message = parse_object(line) if line.strip() else None
        if isinstance(message, dict) and message.get("id") in ids:
            said[str(message["id"])] = _what_is_said(message)
    return said


def _what_is_said(message: Mapping[str, Any]) -> tuple[Any, Any]:
    return message.get("role"), message.get("content")


def _object_or_empty(record: SourceObject | None, key: str) -> Any:
    value = record.value.get(key) if record is not None else None
    return value if isinstance(value, dict) else {}
