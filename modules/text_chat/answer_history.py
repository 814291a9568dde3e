"""The newest messages of a session, for whoever answers in it: read from the end of the log, and then kept.

The next turn reads only what was appended since, so its cost does not depend on the length of the chat.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from modules.core.storage import FileStamp, FlatFiles
from modules.core.types import Message

from .message_log import MessageLog
from .records import Line, message_of

_BLOCK_BYTES = 16 * 1024
_MOST_MESSAGES = 1000
_MOST_CHARACTERS = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Placed:
    """A message, the byte of the log at which it begins, and the one after its last."""

    offset: int
    end: int
    message: Message


class RecentMessages:
    """Safe for use from several threads, beside one writer."""

    def __init__(self, files: FlatFiles, log: MessageLog, user_id: str, session_id: str) -> None:
        self._files = files
        self._log = log
        self._user_id = user_id
        self._session_id = session_id
        self._known: deque[_Placed] = deque()  # one stretch of the log, up to where it was last read
        self._characters = 0
        self._read = FileStamp(0, 0)
        self._lock = threading.Lock()

    def newest_first(self) -> Iterator[Message]:
        """Messages as they stand now, from the last one back; older ones are read as they are asked for."""
        with self._lock:
            self._catch_up()
            known = list(self._known)
        yield from (one.message for one in reversed(known))
        stop = known[0].offset if known else 0
        while stop > 0 and (older := self._block_before(stop)):
            with self._lock:
                self._remember_older(older, stop)
            yield from (one.message for one in reversed(older))
            stop = older[0].offset

    def _catch_up(self) -> None:
        stamp = self._files.stamp(self._log.key)
        if stamp is None or stamp.inode != self._read.inode or stamp.size < self._read.size:
            self._known.clear()
            self._characters = 0
            self._read = FileStamp(0, 0) if stamp is None else FileStamp(stamp.inode, 0)
        if stamp is None:
            return
        if self._known:
            new = [self._placed(line) for line in self._log.scan(self._read.size)]
        else:
            new = self._block_before(stamp.size)
        if new:
            self._known.extend(new)
            self._characters += sum(len(one.message.content) for one in new)
            # Only up to the last whole line: what follows it may be taken off the log again.
            self._read = FileStamp(stamp.inode, new[-1].end)
        while self._is_over() and len(self._known) > 1:
            self._characters -= len(self._known.popleft().message.content)

    def _remember_older(self, older: list[_Placed], stop: int) -> None:
        if self._known and self._known[0].offset == stop and not self._is_over():
            self._known.extendleft(reversed(older))
            self._characters += sum(len(one.message.content) for one in older)

    def _is_over(self) -> bool:
        return len(self._known) > _MOST_MESSAGES or self._characters > _MOST_CHARACTERS

    def _block_before(self, stop: int) -> list[_Placed]:
        """Some of the messages that stand right before byte *stop*; none when there are none."""
        length = _BLOCK_BYTES
        while True:
            start = max(0, stop - length)
            lines = list(takewhile(lambda line: line.offset < stop, self._log.scan(start)))
            # The first line of the block may have lost its beginning; it counts only at the log's start.
            whole = lines if start == 0 else lines[1:]
            if whole or start == 0:
                return [self._placed(line) for line in whole]
            length *= 4

    def _placed(self, line: Line) -> _Placed:
        return _Placed(line.offset, line.offset + len(line.data), message_of(line, self._user_id, self._session_id))
