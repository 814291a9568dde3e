"""What a turn gives its readers: one `TurnStarted`, the answer's text piece by piece, one `TurnEnded`. Where the model
calls tools, `ToolStep`s stand between pieces of text; the answer is what comes after the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from modules.core.types import Message


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """``message`` is the user's, stored. ``is_replay``: the answer had been given before, and comes as it was."""

    type: ClassVar[str] = "started"
    message: Message
    is_replay: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, "message": self.message.to_dict(), "is_replay": self.is_replay}


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    type: ClassVar[str] = "delta"
    text: str

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, "text": self.text}


@dataclass(frozen=True, slots=True)
class ToolStep:
    """``message``, stored: the assistant's with the calls that the model makes, or a tool's with what one came to."""

    type: ClassVar[str] = "tool"
    message: Message

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, "message": self.message.to_dict()}


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """``message`` is the answer as stored; None when the turn was stopped before a word of it.

    ``finish_reason`` is the model's (``stop``, ``length``, ``content_filter``, ``tool_calls``), or says what stopped
    the turn: see `modules.text_chat.turn`; or ``error``, when a turn that failed after its first words is replayed.
    """

    type: ClassVar[str] = "ended"
    message: Message | None
    finish_reason: str

    def to_dict(self) -> dict[str, Any]:
        message = None if self.message is None else self.message.to_dict()
        return {"type": self.type, "message": message, "finish_reason": self.finish_reason}


Chunk = TurnStarted | TextDelta | ToolStep | TurnEnded
