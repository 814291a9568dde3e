"""multi_agent: agents that converse, vote and work on tasks together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .agents import Agent
from .answering import AgentAnswer, Failure
from .conversations import Conversation
from .multi_agent import MultiAgentModule
from .results import AgentAnswers, Erasure, TaskResult
from .settings import MultiAgentSettings
from .termination import Agreement, TextSaid, TimeLimit, TokenLimit, TurnLimit
from .turns import Turn

__all__ = [
    "Agent",
    "AgentAnswer",
    "AgentAnswers",
    "Agreement",
    "Conversation",
    "Erasure",
    "Failure",
    "MultiAgentModule",
    "MultiAgentSettings",
    "TaskResult",
    "TextSaid",
    "TimeLimit",
    "TokenLimit",
    "Turn",
    "TurnLimit",
    "create",
]


def create(settings: Mapping[str, Any]) -> MultiAgentModule:
    """The module for a loader; its settings come again, by path, from the context that `initialize` gets."""
    return MultiAgentModule()
