"""What text_chat reads of its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from modules.core.errors import ConfigurationError

DURABILITIES = ("write", "fsync")


@dataclass(frozen=True, slots=True)
class TextChatSettings:
    """``None`` as a rate is no limit. ``durability`` says when a message counts as stored: ``write`` survives the
    end of this process, ``fsync`` also the end of the machine."""

    max_message_length: int = 65_536
    max_messages_per_session: int = 100_000
    max_sessions_per_user: int = 100
    idle_timeout_s: float = 1800.0
    messages_per_minute: int | None = 60
    tokens_per_minute: int | None = 100_000
    durability: str = "write"

    def __post_init__(self) -> None:
        for name in ("max_message_length", "max_messages_per_session", "max_sessions_per_user"):
            _check(name, getattr(self, name), int, may_be_none=False)
        for name in ("messages_per_minute", "tokens_per_minute"):
            _check(name, getattr(self, name), int, may_be_none=True)
        _check("idle_timeout_s", self.idle_timeout_s, (int, float), may_be_none=False)
        if self.durability not in DURABILITIES:
            raise ConfigurationError(f"text_chat.durability must be write or fsync, not {self.durability!r}")

    @classmethod
    def read(cls, get: Callable[[str, Any], Any]) -> Self:
        """*get(path, default)* looks a setting up, as `ModuleContext.get_config` does."""
        return cls(**{name: get(f"text_chat.{path}", getattr(cls(), name)) for name, path in _PATHS.items()})


_PATHS = {
    "max_message_length": "max_message_length",
    "max_messages_per_session": "max_messages_per_session",
    "max_sessions_per_user": "session.max_sessions_per_user",
    "idle_timeout_s": "session.idle_timeout_seconds",
    "messages_per_minute": "rate_limit.messages_per_minute",
    "tokens_per_minute": "rate_limit.tokens_per_minute",
    "durability": "durability",
}


def _check(name: str, value: object, kind: type | tuple[type, ...], *, may_be_none: bool) -> None:
    if value is None and may_be_none:
        return
    if not isinstance(value, kind) or isinstance(value, bool) or value <= 0:  # type: ignore[operator]
        raise ConfigurationError(f"text_chat.{_PATHS[name]} must be a number above 0, not {value!r}")
