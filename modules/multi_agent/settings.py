"""What multi_agent reads of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given

THROUGH_CHAT = "text_chat"

Get = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class MultiAgentSettings:
    """``model`` and ``embedding`` are whole sections, for whoever makes models of them. ``is_through_chat``: answers
    come from the model that text_chat holds, while that module runs; ``model`` then is the same section.

    ``likeness`` is the cosine of two answers' vectors from which on they count as saying the same.
    """

    max_turns: int = 50
    max_agents_per_conversation: int = 10
    max_agents_per_user: int = 100
    max_running_per_user: int = 10
    max_message_length: int = 16_384
    agent_timeout_s: float = 60.0
    max_parallel_answers: int = 8
    quorum: float = 0.7
    max_rounds: int = 5
    likeness: float = 0.8
    max_tokens: int = 256
    max_prompt_tokens: int = 3_000
    allowed_models: tuple[str, ...] = ()
    is_through_chat: bool = True
    model: Mapping[str, Any] = field(default_factory=dict, repr=False)
    embedding: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"multi_agent.{_PATHS[name]} must be a whole number above 0, not {value!r}")
        for name, most in (("agent_timeout_s", float("inf")), ("quorum", 1), ("likeness", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
                upto = "" if most == float("inf") else f" and at most {most}"
                raise ConfigurationError(f"multi_agent.{_PATHS[name]} must be a number above 0{upto}, not {value!r}")
        if not all(isinstance(one, str) and one for one in self.allowed_models):
            raise ConfigurationError("multi_agent.model.allowed_models must be names of models")

    @classmethod
    def read(cls, get: Get) -> Self:
        """*get(path, default)* looks a setting up, as `ModuleContext.get_config` does."""
        found = given(get("multi_agent", {}), _PATHS)
        if "allowed_models" in found:
            found["allowed_models"] = tuple(found["allowed_models"])
        own: Mapping[str, Any] = get("multi_agent.model", {})
        is_through_chat = own.get("provider", THROUGH_CHAT) == THROUGH_CHAT
        model = _chats_model(own, get("text_chat.model", {})) if is_through_chat else own
        return cls(**found, is_through_chat=is_through_chat, model=model, embedding=get("rag.embedding", {}))


def _chats_model(own: Mapping[str, Any], chat: Mapping[str, Any]) -> Mapping[str, Any]:
    idle = [name for name in ("model", "base_url", "api_key") if own.get(name) is not None]
    if idle:
        raise ConfigurationError(
            f"multi_agent.model.{idle[0]} does nothing while multi_agent.model.provider is {THROUGH_CHAT!r}"
        )
    return {**chat, "timeout_seconds": own.get("timeout_seconds", chat.get("timeout_seconds", 60.0))}


_PATHS = {
    "max_turns": "max_turns",
    "max_agents_per_conversation": "max_agents_per_conversation",
    "max_agents_per_user": "max_agents_per_user",
    "max_running_per_user": "max_running_per_user",
    "max_message_length": "max_message_length",
    "agent_timeout_s": "agent_timeout_seconds",
    "max_parallel_answers": "max_parallel_answers",
    "quorum": "consensus.quorum",
    "max_rounds": "consensus.max_rounds",
    "likeness": "consensus.likeness",
    "max_tokens": "model.max_tokens",
    "max_prompt_tokens": "model.max_prompt_tokens",
    "allowed_models": "model.allowed_models",
}

_COUNTS = tuple(name for name in _PATHS if name not in {"agent_timeout_s", "quorum", "likeness", "allowed_models"})
