"""What callers are given besides agents, turns and conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .answering import AgentAnswer
from .conversations import Conversation
from .turns import Turn


@dataclass(frozen=True, slots=True)
class AgentAnswers:
    """``answers`` in the order in which the agents were named. ``unanswered``: who was not waited for."""

    answers: tuple[AgentAnswer, ...]
    unanswered: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"answers": [one.to_dict() for one in self.answers], "unanswered": list(self.unanswered)}


@dataclass(frozen=True, slots=True)
class TaskResult:
    """``answer`` is what the task came to; None while it runs, and where it came to nothing (the conversation's
    ``reason`` says why). ``turns``: what there is so far, of those that failed too."""

    conversation: Conversation
    answer: str | None
    turns: tuple[Turn, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "conversation": self.conversation.to_dict(),
            "answer": self.answer,
            "turns": [turn.to_dict() for turn in self.turns],
        }


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was removed of a user."""

    user_id: str
    agents: int
    conversations: int
