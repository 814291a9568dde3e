"""What topics are learned from: contents with their topics, in a journal. Synchronous; called from threads.

``topic_router/examples.jsonl`` is only appended to: an example, or the id of one that was forgotten. Erasing a user
rewrites it. Lines that cannot be read are kept beside it when it is next written to.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Self, TypeVar, cast

from modules.core.errors import Conflict, NotFound, ValidationError
from modules.core.storage import FileStamp, FlatFiles

from .topics import check_topics

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Callable[..., Any])

KEY = "topic_router/examples.jsonl"
QUARANTINE = "topic_router/examples.quarantine.jsonl"
_LONGEST = 8_000


@dataclass(frozen=True, slots=True)
class Example:
    """``topics`` may be empty: an example of what is about none of them. ``user_id``: whose words they are, ``""``
    where nobody's. The same words of the same user have the same id."""

    user_id: str
    id: str
    content: str
    topics: tuple[str, ...]

    @classmethod
    def made(cls, content: object, topics: object, user_id: str = "") -> Self:
        """Raises ValidationError."""
        if not isinstance(content, str) or not content.strip() or len(content) > _LONGEST:
            raise ValidationError(
                f"the content of an example must be text of 1 to {_LONGEST} characters", param="content"
            )
        try:
            digest = blake2b(f"{user_id}\0{content}".encode(), digest_size=12).hexdigest()
        except UnicodeEncodeError as error:
            raise ValidationError(
                f"the content of an example is not Unicode text: {error.reason}", param="content"
            ) from error
        return cls(user_id, f"ex_{digest}", content, check_topics(topics))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "topics": list(self.topics)}


def _locked(method: M) -> M:
    @functools.wraps(method)
    def alone(self: Examples, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast(M, alone)


class Examples:
    """All of them, as far as the journal was read. One writer; any number may read. Safe for use from several
    threads."""

    def __init__(self, files: FlatFiles) -> None:
        self._files = files
        self._by_id: dict[str, Example] = {}
        self._stamp: FileStamp | None = None
        self._lines = 0
        self._damaged: list[bytes] = []
        self._revision = 0
        self._lock = threading.RLock()

    def known(self) -> tuple[int, tuple[Example, ...]]:
        """A number that grows with every change, and the examples as they are; the journal is read again if somebody
        wrote to it."""
        with self._lock:
            self._refresh()
            return self._revision, tuple(self._by_id.values())

    @property
    def revision(self) -> int:
        """That of what was last read or written here."""
        return self._revision

    @_locked
    def add(self, examples: Sequence[Example], *, at_most: int) -> None:
        """In place of those of the same ids. Raises Conflict where there would be too many; none is added then."""
        self._for_writing()
        count = len(self._by_id.keys() | {one.id for one in examples})
        if count > at_most:
            raise Conflict(f"there would be {count} examples of at most {at_most}; forget some first")
        self._append(one.to_dict() for one in examples)
        self._by_id |= {one.id: one for one in examples}
        self._revision += 1

    @_locked
    def forget(self, ids: Iterable[str]) -> int:
        """How many there were."""
        self._for_writing()
        known = [one for one in dict.fromkeys(ids) if one in self._by_id]
        if known:
            self._append({"forgotten": one} for one in known)
        for one in known:
            del self._by_id[one]
        self._revision += bool(known)
        if self._lines > 2 * len(self._by_id) + 64:
            self._rewrite()
        return len(known)

    @_locked
    def of_user(self, user_id: str) -> list[Example]:
        self._refresh()
        return [one for one in self._by_id.values() if one.user_id == user_id]

    @_locked
    def erase(self, user_id: str) -> int:
        """Rewrite the journal, and what was set aside, without anything of a user."""
        self._for_writing()
        own = self.of_user(user_id)
        self._by_id = {one.id: one for one in self._by_id.values() if one.user_id != user_id}
        self._revision += bool(own)
        self._rewrite()
        self._erase_quarantine(user_id)
        return len(own)

    def _refresh(self) -> None:
        stamp = self._files.stamp(KEY)
        if stamp != self._stamp:
            self._load()
            self._stamp = stamp
            self._revision += 1

    def _append(self, records: Iterable[Mapping[str, Any]]) -> None:
        lines = [_encoded(record) for record in records]
        if lines:
            self._stamp = self._files.append(KEY, b"".join(lines), fsync=True)
            self._lines += len(lines)

    def _rewrite(self) -> None:
        if self._files.exists(KEY):
            self._files.write(KEY, b"".join(_encoded(one.to_dict()) for one in self._by_id.values()), fsync=True)
        self._stamp = self._files.stamp(KEY)
        self._lines = len(self._by_id)

    def _load(self) -> None:
        try:
            lines = [line for line in self._files.read(KEY).split(b"\n") if line.strip()]
        except NotFound:
            lines = []
        self._by_id, self._lines = {}, len(lines)
        self._damaged = [line for line in lines if not self._take(line)]
        if self._damaged:
            log.warning("%s: %d unreadable lines are passed over", KEY, len(self._damaged))

    def _for_writing(self) -> None:
        """As it stands now; what cannot be read is set aside. Who only reads leaves it where it is: there is one
        writer."""
        self._refresh()
        if self._damaged:
            self._files.append(QUARANTINE, b"\n".join(self._damaged) + b"\n", fsync=True)
            self._rewrite()
            self._damaged = []

    def _take(self, line: bytes) -> bool:
        try:
            record = json.loads(line)
            if "forgotten" in record:
                self._by_id.pop(record["forgotten"], None)
                return True
            example = Example.made(record["content"], record["topics"], record["user_id"])
        except (ValueError, TypeError, KeyError, ValidationError):
            return False
        self._by_id[example.id] = example
        return True

    def _erase_quarantine(self, user_id: str) -> None:
        # A line that cannot be read still begins with whose it is; one that does not even say that may be anybody's.
        own = _encoded({"user_id": user_id})[:-2]
        try:
            lines = self._files.read(QUARANTINE).split(b"\n")
        except NotFound:
            return
        kept = [line for line in lines if line.startswith(b'{"user_id": "') and not line.startswith(own)]
        if kept:
            self._files.write(QUARANTINE, b"\n".join(kept) + b"\n", fsync=True)
        else:
            self._files.delete(QUARANTINE)


def _encoded(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
