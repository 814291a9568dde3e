"""What answering reads of the settings, under ``text_chat``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import ConfigurationError

SYSTEM_PROMPT = "You are a helpful assistant. Answer truthfully and to the point; where you do not know, say so."


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """``provider`` is the whole section, for whoever makes the model of it.

    ``max_prompt_tokens`` bounds the prompt below what the model's context window would allow: every token of it is
    paid for, in money or in time to the first word. ``routing``: whether messages are routed that do not say.
    """

    max_tokens: int = 1024
    max_prompt_tokens: int = 4000
    system_prompt: str = SYSTEM_PROMPT
    routing: bool = False
    provider: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_prompt_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"text_chat.model.{name} must be a whole number above 0, not {value!r}")
        if not isinstance(self.system_prompt, str):
            raise ConfigurationError("text_chat.model.system_prompt must be text")
        if not isinstance(self.routing, bool):
            raise ConfigurationError(f"text_chat.routing must be true or false, not {self.routing!r}")
        if not isinstance(self.provider, Mapping):
            raise ConfigurationError(f"text_chat.model must be an object, not {self.provider!r}")

    @classmethod
    def read(cls, get: Callable[[str, Any], Any]) -> Self:
        """*get(path, default)* looks a setting up, as `ModuleContext.get_config` does."""
        default = cls()
        names = ("max_tokens", "max_prompt_tokens", "system_prompt")
        given = {name: get(f"text_chat.model.{name}", getattr(default, name)) for name in names}
        return cls(**given, routing=get("text_chat.routing", default.routing), provider=get("text_chat.model", {}))
