"""What is known of a session's log without reading it: derived, kept in state.json, and always checked.

The state says up to which byte of which file it holds. What stands after that byte is read and added; when the file
is another one, or shorter, everything is counted anew. So state.json may be old, lost or damaged without harm, and
need not be written at every message.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Self

import msgspec

from modules.core.clock import moment_of
from modules.core.storage import FileStamp
from modules.core.types import Message, estimate_tokens


@dataclass(frozen=True, slots=True)
class SessionState:
    """``turn_count`` counts the user's messages; ``active_since`` is when the present activity began."""

    last_message_id: str | None = None
    turn_count: int = 0
    total_tokens: int = 0
    active_since: str = ""
    last_activity: str = ""
    message_count: int = 0
    log_inode: int = 0
    log_bytes: int = 0

    def after(self, message: Message, idle_timeout_s: float, stamp: FileStamp | None = None) -> SessionState:
        """The state once *message* is the last one of the log, true as far as *stamp* says, or as it was."""
        moment = message.timestamp or self.last_activity
        goes_on = bool(self.active_since) and not was_idle(self.last_activity, moment, idle_timeout_s)
        # Built anew and not by `replace`, which takes twice the time: this is done for each message.
        return SessionState(
            last_message_id=message.id,
            turn_count=self.turn_count + (message.role == "user"),
            total_tokens=self.total_tokens + tokens_of(message),
            active_since=self.active_since if goes_on else moment,
            last_activity=moment,
            message_count=self.message_count + 1,
            log_inode=self.log_inode if stamp is None else stamp.inode,
            log_bytes=self.log_bytes if stamp is None else stamp.size,
        )

    def at(self, stamp: FileStamp) -> SessionState:
        """The same state, true for the log as far as *stamp* says."""
        return replace(self, log_inode=stamp.inode, log_bytes=stamp.size)

    @property
    def stamp(self) -> FileStamp:
        """The log, as far as this is true for it."""
        return FileStamp(self.log_inode, self.log_bytes)

    def covers_a_part_of(self, stamp: FileStamp) -> bool:
        return self.log_inode == stamp.inode and self.log_bytes <= stamp.size

    def to_bytes(self) -> bytes:
        return msgspec.json.encode(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """None when *data* is no state, for whatever reason."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError:
            return None


def tokens_of(message: Message) -> int:
    """As counted by who wrote it, else estimated."""
    return estimate_tokens(message.content) if message.tokens is None else message.tokens


def was_idle(last_activity: str, moment: str, idle_timeout_s: float) -> bool:
    """Whether more than the time-out lies between two timestamps. False where one of them is none."""
    before, after = moment_of(last_activity), moment_of(moment)
    return before is not None and after is not None and (after - before).total_seconds() > idle_timeout_s
