"""A session in use: its log, what is known of it, and the keys of recent sends. Synchronous; called from threads.

Cost of a message does not depend on the length of the chat: the log is only read from where the state ends, and
idempotency keys are looked for among the last `KEYS_REMEMBERED` messages.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.clock import Clock, IdMaker
from modules.core.errors import Conflict, NotFound, StorageError, ValidationError
from modules.core.storage import FlatFiles
from modules.core.types import Attachment, Message, Session

from .answer_history import RecentMessages
from .limits import RateLimits
from .message_log import MessageLog
from .paging import window
from .records import IDEMPOTENCY_KEY, Line, line_of, message_of
from .settings import TextChatSettings
from .state import SessionState, tokens_of

log = logging.getLogger(__name__)

KEYS_REMEMBERED = 1000
_SEARCH_BLOCK = 1000
# state.json may lag by so many, the log itself never does: reading those of a crash again takes a millisecond or two,
# and to replace a file costs as much as to store several messages.
_MESSAGES_A_STATE = 256


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that somebody wants to send; checked against *limit* characters by `check`."""

    content: str
    role: str = "user"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    parent_id: str | None = None
    tokens: int | None = None
    status: str = "complete"
    idempotency_key: str | None = None

    def check(self, limit: int) -> None:
        """Raises ValidationError. What the type `Message` checks itself is left to it."""
        if not isinstance(self.content, str):
            raise ValidationError(f"content must be text, not {type(self.content).__name__}", param="content")
        if len(self.content) > limit:
            raise ValidationError(f"content has {len(self.content)} characters of at most {limit}", param="content")
        if not self.content and not self.attachments and self.role == "user":
            raise ValidationError("content must not be empty", param="content")
        key = self.idempotency_key
        if key is not None and not (isinstance(key, str) and 1 <= len(key) <= 255):
            raise ValidationError("idempotency_key must be text of 1 to 255 characters", param="idempotency_key")


@dataclass(frozen=True, slots=True)
class Stored:
    """``is_new`` is False when the same send had been stored before."""

    message: Message
    is_new: bool


class OpenSession:
    """`append` and `save` are for the session's one writer; reading may go on beside it."""

    def __init__(self, files: FlatFiles, session: Session, settings: TextChatSettings) -> None:
        self.session = session
        self.log = MessageLog(files, session.user_id, session.id, idle_timeout_s=settings.idle_timeout_s)
        self.recent = RecentMessages(files, self.log, session.user_id, session.id)
        self.state: SessionState | None = None
        self._settings = settings
        self._keys: OrderedDict[str, int] | None = None
        self._unsaved = 0

    def append(self, draft: Draft, limits: RateLimits, clock: Clock, new_message_id: IdMaker) -> Stored:
        """Store the message that *draft* asks for.

        A draft whose key was used before gives the message of then, or Conflict when that one said something else.
        Raises ValidationError, Conflict for an ended or full session, RateLimited, StorageError; nothing is stored
        then.
        """
        state = self._caught_up()
        known = self._sent_before(draft)
        if known is not None:
            return Stored(known, is_new=False)
        self._check_room(state)
        message = Message(
            id=new_message_id(),
            session_id=self.session.id,
            role=draft.role,
            content=draft.content,
            timestamp=clock.now().isoformat(),
            metadata=_with_key(draft),
            attachments=draft.attachments,
            status=draft.status,
            tokens=draft.tokens,
            parent_id=draft.parent_id,
        )
        line = line_of(message)
        _charge(limits, self.session.user_id, message)
        # The first line makes the file; only an fsync at that moment makes its name durable too.
        first = state.log_bytes == 0 and self._settings.durability == "fsync"
        stamp = self.log.append(line, fsync=first)
        self.state = state.after(message, self._settings.idle_timeout_s, stamp)
        self._remember_key(draft, stamp.size - len(line))
        self._unsaved += 1
        if self._unsaved >= _MESSAGES_A_STATE:
            self.save()
        return Stored(message, is_new=True)

    def save(self) -> None:
        """Write state.json if something was stored since the last time.

        A failure is logged and no more: the messages are stored, and the state can be counted from them again.
        """
        if self._unsaved and self.state is not None:
            try:
                self.log.save_state(self.state)
            except StorageError:
                log.warning("%s was not written", self.log.state_key, exc_info=True)
            self._unsaved = 0

    def page(self, limit: int, offset: int, after: str | None, before: str | None, order: str) -> list[Message]:
        """Raises NotFound when a cursor is no message of this session."""
        if after is None and before is None:
            lines = self.log.lines(offset, offset + limit) if order == "asc" else self.log.last(limit, offset)
        else:
            total = self.log.length()

            def place(message_id: str | None) -> int | None:
                return None if message_id is None else _mirrored(self._place_of(message_id), total, order)

            start, stop = window(total, limit, after=place(after), before=place(before))
            lines = self.log.lines(start, stop) if order == "asc" else self.log.lines(total - stop, total - start)
        messages = [self._message(line) for line in lines]
        return messages if order == "asc" else messages[::-1]

    def messages(self) -> Iterator[Message]:
        """All messages, oldest first."""
        return map(self._message, self.log.scan())

    def up_to(self, message_id: str | None) -> bytes:
        """The log's bytes as far as this message, or all of them; whole lines only. Raises NotFound."""
        stop = self.log.length() if message_id is None else self._place_of(message_id) + 1
        return b"".join(line.data + b"\n" for line in self.log.lines(0, stop))

    def matching(self, folded_query: str) -> Iterator[Message]:
        """Messages whose content holds the query, newest first."""
        for start in range(self.log.length(), 0, -_SEARCH_BLOCK):
            for line in reversed(self.log.lines(max(0, start - _SEARCH_BLOCK), start)):
                message = self._message(line)
                if folded_query in message.content.casefold():
                    yield message

    def _caught_up(self) -> SessionState:
        known = self.state if self.state is not None else self.log.saved_state()
        if known is None:
            self._unsaved = _MESSAGES_A_STATE  # counted from the whole log: write that down at once
        self.state = self.log.catch_up(known)
        if known is None or known.message_count != self.state.message_count:
            self._keys = None  # somebody else wrote: look for keys again
        return self.state

    def _check_room(self, state: SessionState) -> None:
        if not self.session.active:
            raise Conflict(f"session {self.session.id!r} has ended; fork it to go on")
        if state.message_count >= self._settings.max_messages_per_session:
            raise Conflict(
                f"session {self.session.id!r} is full with {state.message_count} messages; fork it or start another"
            )

    def _sent_before(self, draft: Draft) -> Message | None:
        if draft.idempotency_key is None:
            return None
        if self._keys is None:
            self._keys = OrderedDict(self._keys_in(self.log.last(KEYS_REMEMBERED)))
        offset = self._keys.get(draft.idempotency_key)
        line = None if offset is None else self.log.at(offset)
        if line is None:
            return None
        message = self._message(line)
        if (message.role, message.content) != (draft.role, draft.content):
            raise Conflict(
                f"idempotency key {draft.idempotency_key!r} was used for another message", candidates=(message.id,)
            )
        return message

    def _keys_in(self, lines: list[Line]) -> Iterator[tuple[str, int]]:
        for line in lines:
            if IDEMPOTENCY_KEY.encode() in line.data:
                key = self._message(line).metadata.get(IDEMPOTENCY_KEY)
                if isinstance(key, str):
                    yield key, line.offset

    def _remember_key(self, draft: Draft, offset: int) -> None:
        if draft.idempotency_key is None or self._keys is None:
            return
        self._keys[draft.idempotency_key] = offset
        if len(self._keys) > KEYS_REMEMBERED:
            self._keys.popitem(last=False)

    def _message(self, line: Line) -> Message:
        return message_of(line, self.session.user_id, self.session.id)

    def _place_of(self, message_id: str) -> int:
        place = self.log.place_of(message_id)
        if place is None:
            raise NotFound(f"session {self.session.id!r} has no message {message_id!r}")
        return place


def _mirrored(place: int, total: int, order: str) -> int:
    return place if order == "asc" else total - 1 - place


def _with_key(draft: Draft) -> Mapping[str, Any]:
    if draft.idempotency_key is None:
        return draft.metadata
    return {**draft.metadata, IDEMPOTENCY_KEY: draft.idempotency_key}


def _charge(limits: RateLimits, user_id: str, message: Message) -> None:
    if message.role == "user":
        limits.admit(user_id, tokens_of(message))
    else:
        limits.note_tokens(user_id, tokens_of(message))
